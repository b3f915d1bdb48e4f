/** What an operator can do to one session. */
import { post, remove, request, seg } from './api.js';
import { h, put } from './dom.js';
import { keepDraft } from './drafts.js';
import { count, plural } from './format.js';
import { go } from './router.js';
import { visible } from './text.js';
import { act, actButton, confirm, dialog, field, submitButton, toast } from './widgets.js';

const path = (id, rest = '') => `sessions/${seg(id)}${rest}`;

/** Makes a session of the log up to `cursor`, and goes there. */
export async function fork(id, cursor) {
  const made = await post(path(id, '/fork'), { at: cursor });
  toast(`Forked after event ${count(cursor)}`);
  go(['sessions', made.session_id]);
}

/** Asks for a cursor first. */
async function forkAt(id, { oldest_cursor: oldest, cursor: head }) {
  const at = await dialog('Fork this session', (close) => {
    const input = h('input', { type: 'number', min: oldest - 1, max: head, step: 1, required: true, value: head, autofocus: true });
    return h('form', { class: 'form', onsubmit: (e) => (e.preventDefault(), close(Number(input.value))) },
      field('After event', input, `A new session begins with a copy of the log up to there (${count(oldest - 1)} to ${count(head)}). This one stays as it is.`),
      h('div', { class: 'buttons end' },
        h('button', { type: 'button', onclick: () => close(null) }, 'Cancel'),
        h('button', { class: 'main' }, 'Fork')));
  });
  if (at !== null) await fork(id, at);
}

async function abort(id) {
  const answer = await post(path(id, '/abort'), { reason: 'operator' });
  toast(answer.status === 'aborted' ? `Turn ${count(answer.turn)} is asked to stop` : 'No turn is at work: nothing to abort');
}

async function close(id, detail) {
  const open = detail.turns.filter((t) => t.state !== 'dead').length;
  const sure = await confirm('Close this session?', [
    'It takes no more messages, and cannot be opened again. ',
    open > 0 && `${plural(open, 'open turn')} will end as aborted. `,
    detail.connections.length > 0 && `${plural(detail.connections.length, 'connection')} will be told.`,
  ], 'Close it');
  if (!sure) return;
  await post(path(id, '/close'));
  toast('The session is closed');
}

async function erase(id) {
  const sure = await confirm('Delete this session?', ['Its events are gone for good. ', h('strong', null, 'Nothing brings them back.')], 'Delete it');
  if (!sure) return;
  await remove(path(id));
  toast(`Session ${visible(id)} is deleted`);
  go('sessions');
}

async function save(id) {
  const response = await request('GET', path(id, '/events'), { headers: { Accept: 'application/x-ndjson' } });
  const url = URL.createObjectURL(await response.blob());
  const a = h('a', { href: url, download: `${id.replace(/[^A-Za-z0-9_.-]/g, '_')}.ndjson` });
  a.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

/** The buttons of a session; `read()` gives its latest detail, `changed()` is called after a change. */
export function actButtons(id, read, changed) {
  const then = (fn) => async () => {
    await fn();
    changed();
  };
  const end = actButton('Close', then(() => close(id, read())));
  const exporting = h('button', { type: 'button', onclick: () => act(exporting, () => save(id)) }, 'Export');
  return {
    element: h('div', { class: 'buttons' },
      actButton('Fork', () => forkAt(id, read())),
      exporting,
      end,
      actButton('Delete', () => erase(id), { kind: 'danger' })),
    draw(detail) {
      end.hidden = detail.state !== 'open';
    },
  };
}

/**
 * A form to say something as the operator, and to stop the answer: `{ element, end(why) }`. When no more can be said it
 * goes, unless something is typed in it already.
 */
export function sayForm(id, said) {
  const text = h('textarea', { rows: 2, placeholder: 'Say something as the operator', 'aria-label': 'Say something as the operator', required: true });
  const draft = keepDraft(text, `say ${id}`);
  const button = submitButton('Say', 'main');
  const note = h('small', null, 'Enter sends, Shift+Enter begins a line. The agent sees it as the next message.');
  let key = null; // a repeat of the same text after a failure is stored once
  let keyed = '';
  const send = () => act(button, async () => {
    const content = text.value;
    if (!content || text.readOnly) return;
    if (keyed !== content || key === null) [key, keyed] = [newKey(), content];
    await post(path(id, '/messages'), { content }, { headers: { 'Idempotency-Key': key } });
    key = null;
    draft.said();
    said();
  });
  text.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    }
  });
  const stop = actButton('Abort turn', async () => {
    await abort(id);
    said();
  });
  const element = h('form', { class: 'composer', onsubmit: (e) => (e.preventDefault(), send()) }, text, button, stop, note);
  return {
    element,
    end(why) {
      element.hidden = text.value === '';
      text.readOnly = true;
      button.hidden = true;
      stop.hidden = true;
      put(note, why);
    },
  };
}

const newKey = () => [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, '0')).join('');
