/**
 * Text of strangers. Short labels show what they hold, with every invisible and reordering character
 * spelled out, so that one name cannot pose as another. Long text keeps its characters, is kept from
 * reordering what stands beside it, and is cut to what a browser lays out in a moment.
 */
import { h } from './dom.js';
import { bytes } from './format.js';

const LABEL_MAX = 160;
export const PROSE_MAX = 20000;

// Control and format characters, separators of lines, byte order marks, variation and tag characters.
const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\u115f\u1160\u3164\ufe00-\ufe0f\uffa0]/gu;

/** `text` with invisible characters as ‹U+…›. */
export function visible(text) {
  return String(text).replace(UNSEEN, (c) => `‹U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, '0')}›`);
}

/** `text` as one word of a shell's command line; null when it has characters that nobody can see. */
export function shellWord(text) {
  if (/^[A-Za-z0-9_.:@%+,/][A-Za-z0-9_.:@%+,/=-]*$/.test(text)) return text;
  return visible(text) === text ? `'${text.replace(/'/g, "'\\''")}'` : null;
}

/** A name or id on one line; null is a dash. */
export function label(text, className) {
  if (text === null || text === undefined || text === '') return h('span', { class: 'soft' }, '–');
  const whole = visible(text);
  const cut = whole.length > LABEL_MAX;
  return h('bdi', { class: className, title: cut ? whole.slice(0, 4000) : null }, cut ? whole.slice(0, LABEL_MAX) + '…' : whole);
}

/** An id in the monospace face. */
export const code = (text) => label(text, 'mono');

/** Where to cut so that no surrogate pair is split. */
function cutAt(text, at) {
  const c = text.charCodeAt(at - 1);
  return c >= 0xd800 && c < 0xdc00 ? at - 1 : at;
}

/**
 * Text of any length that may grow: `{ element, set(text) }`. Beyond PROSE_MAX characters the rest
 * waits behind a button.
 */
export function prose(className = 'prose') {
  const node = document.createTextNode('');
  const body = h('div', { class: className, dir: 'auto' }, node);
  const more = h('button', { class: 'quiet', type: 'button', hidden: true, onclick: () => open() });
  const element = h('div', { class: 'prose-box' }, body, more);
  let text = '';
  let limit = PROSE_MAX;

  function open() {
    limit = Infinity;
    draw();
    body.tabIndex = -1;
    body.focus();
  }
  function draw() {
    const shown = text.length > limit ? text.slice(0, cutAt(text, limit)) : text;
    if (shown.startsWith(node.data)) node.appendData(shown.slice(node.data.length));
    else node.data = shown;
    more.hidden = shown.length === text.length;
    if (!more.hidden) more.textContent = `Show all of it (${bytes(text.length)})`;
  }
  return {
    element,
    set(value) {
      if (value === text) return;
      text = value;
      draw();
    },
  };
}

function escaped(c) {
  if (c === '\n') return c; // JSON's own lines; a newline in a string is written \n already
  return Array.from(c, (point) => point.split('').map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`).join('')).join('');
}

/** Any JSON value for reading, with the characters that a reader could not see escaped. */
export const jsonText = (value) => JSON.stringify(value, null, 2).replace(UNSEEN, escaped);

/** A JSON value as a block. */
export function jsonBlock(value) {
  const block = prose('prose code');
  block.set(jsonText(value));
  return block.element;
}
