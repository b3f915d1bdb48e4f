/** Pieces that pages share: states, badges, buttons that act, dialogs, messages. */
import { h, put, uniqueId } from './dom.js';
import { may } from './api.js';

/** What to do about a problem, in words. */
function advice(problem) {
  if (problem.code === 'insufficient_scope') {
    return problem.requiredScope
      ? `This token lacks the scope "${problem.requiredScope}". Sign in with one that has it.`
      : 'Ask for less, or sign in with a token that may do more.';
  }
  if (problem.code === 'unreachable') return 'Is the gateway running? Its log says why it stopped.';
  if (problem.code === 'storage_unavailable') return 'Look at the disk: free space, errors in the log. Reading goes on meanwhile.';
  switch (problem.nextStep) {
    case 'reauthenticate':
      return 'Sign in with a fresh token.';
    case 'wait_then_retry':
      return 'Wait a moment, then try again.';
    default:
      return '';
  }
}

/** One line: what went wrong. */
export function explain(problem) {
  if (problem.title === undefined) return `This page has a fault: ${problem.message}`;
  const where = problem.field ? `${problem.field}: ` : '';
  return problem.detail ? `${problem.title}. ${where}${problem.detail}` : `${where}${problem.title}`;
}

export const loading = (text) => h('p', { class: 'state loading', role: 'status' }, h('span', { class: 'spinner' }), text);

/** Something went wrong: what, what to do, and again. */
export function failure(problem, retry) {
  return h(
    'div',
    { class: 'state failure', role: 'alert' },
    h('h3', null, problem.title ?? 'This page has a fault'),
    h('p', null, problem.title === undefined ? problem.message : [problem.field ? `${problem.field}: ` : '', problem.detail]),
    h('p', { class: 'soft' }, advice(problem)),
    retry && h('button', { type: 'button', onclick: retry }, 'Try again'),
  );
}

/** Nothing is here: why, and what to do next. */
export const empty = (title, hint, ...more) => h('div', { class: 'state' }, h('h3', null, title), h('p', { class: 'soft' }, hint), more);

export const badge = (text, kind = '') => h('span', { class: `badge ${kind}` }, text);

const TURN_KIND = { running: 'live', queued: '', waiting: 'warn', aborting: 'warn', dead: 'bad' };
export const turnBadge = (state) => badge(state, TURN_KIND[state] ?? '');
export const sessionBadge = (state) => badge(state, state === 'open' ? 'good' : '');

// Messages that pass.

/** Says `text` for some seconds, and to a screen reader; a failure stays until it is put away. */
export function toast(text, kind = '') {
  const place = document.getElementById('toasts');
  const close = () => box.remove();
  const box = h('div', { class: `toast ${kind}`, role: kind === 'bad' ? 'alert' : 'status' },
    h('span', null, text),
    h('button', { class: 'quiet', type: 'button', 'aria-label': 'Dismiss', onclick: close }, '✕'));
  place.append(box);
  while (place.childElementCount > 4) place.firstElementChild.remove();
  if (kind !== 'bad') setTimeout(close, 6000);
}

/** Runs `fn`, with `button` out of use meanwhile; a failure becomes a message. @returns whether it went well */
export async function act(button, fn) {
  const had = document.activeElement === button;
  button.disabled = true;
  button.classList.add('busy');
  try {
    await fn();
    return true;
  } catch (problem) {
    if (problem.name !== 'AbortError') toast([explain(problem), advice(problem)].filter(Boolean).join(' '), 'bad');
    return false;
  } finally {
    button.disabled = false;
    button.classList.remove('busy');
    // A button out of use cannot keep the keyboard's place.
    if (had && (document.activeElement === null || document.activeElement === document.body)) button.focus({ preventScroll: true });
  }
}

/** A button that changes something: needs the scope `admin`. */
export function actButton(text, fn, { kind = '', label: name } = {}) {
  const allowed = may('admin');
  const button = h('button', {
    type: 'button',
    class: kind,
    disabled: !allowed,
    title: allowed ? null : 'Needs a token with the scope admin',
    'aria-label': name,
    onclick: () => act(button, fn),
  }, text);
  return button;
}

/** The button that sends a form which changes something. */
export function submitButton(text, kind = '') {
  const allowed = may('admin');
  return h('button', { class: kind, disabled: !allowed, title: allowed ? null : 'Needs a token with the scope admin' }, text);
}

// Dialogs.

/** Shows `content(close)` in a dialog; resolves with what was handed to close, null when dismissed. */
export function dialog(title, content) {
  return new Promise((resolve) => {
    const id = uniqueId();
    const before = document.activeElement;
    let result = null;
    const box = h('dialog', { 'aria-labelledby': id });
    const close = (value) => {
      result = value;
      box.close();
    };
    fillDialog(box, id, title, content(close));
    box.addEventListener('close', () => {
      box.remove();
      if (before instanceof HTMLElement && before.isConnected) before.focus();
      resolve(result);
    });
    document.body.append(box);
    box.showModal();
  });
}

function fillDialog(box, id, title, content) {
  put(box, h('h2', { id }, title), content);
}

/** Asks before something that cannot be undone. */
export function confirm(title, text, action) {
  return dialog(title, (close) => [
    h('p', null, text),
    h('div', { class: 'buttons end' },
      h('button', { type: 'button', autofocus: true, onclick: () => close(false) }, 'Keep it as it is'),
      h('button', { type: 'button', class: 'danger', onclick: () => close(true) }, action)),
  ]);
}

/** A labelled input. `control` is an element; `hint` stands below it. */
export function field(name, control, hint) {
  const id = uniqueId();
  control.id = id;
  const note = hint && h('small', { id: `${id}h` }, hint);
  if (hint) control.setAttribute('aria-describedby', `${id}h`);
  return h('div', { class: 'field' }, h('label', { for: id }, name), control, note);
}

/** Text that can be copied with one button. */
export function copyable(text, what) {
  const shown = h('code', { class: 'copy-text', tabindex: 0 }, text);
  const button = h('button', {
    type: 'button',
    onclick: async () => {
      try {
        await navigator.clipboard.writeText(text);
        toast(`${what} copied`);
      } catch {
        getSelection().selectAllChildren(shown);
        toast(`${what} selected: copy it with the keyboard`);
      }
    },
  }, 'Copy');
  return h('div', { class: 'copy' }, shown, button);
}

/** Name and value pairs. */
export const facts = (pairs) =>
  h('dl', { class: 'facts' }, pairs.filter(Boolean).map(([name, value]) => h('div', null, h('dt', null, name), h('dd', null, value))));

/** A titled box. */
export const panel = (title, ...content) => {
  const id = uniqueId();
  return h('section', { class: 'panel', 'aria-labelledby': id }, h('h2', { id }, title), content);
};
