/** Acts on the whole gateway: a backup with its progress, a checkpoint, a gentle end. */
import { get, post } from './api.js';
import { h, put } from './dom.js';
import { bytes, clock, count } from './format.js';
import { code } from './text.js';
import { act, actButton, confirm, explain, field, submitButton, toast } from './widgets.js';

const STEP_MS = 500;

function told(b) {
  switch (b.state) {
    case 'running':
      return [h('progress', { max: b.pages_total || 1, value: b.pages_done, 'aria-label': 'Backup' }), ' ',
        `${count(b.pages_done)} of ${count(b.pages_total)} pages to `, code(b.to)];
    case 'done':
      return ['The last backup went well: ', code(b.to), ', ', clock(b.finished)];
    case 'failed':
      return h('span', { class: 'bad' }, 'The last backup failed: ', code(b.error), ' (', code(b.to), ')');
    default:
      return 'No backup since the start.';
  }
}

/** Shows how the backup is, again and again while it runs. */
function backupState(page) {
  const element = h('p', { role: 'status' });
  let timer;
  page.signal.addEventListener('abort', () => clearTimeout(timer));
  const look = async () => {
    clearTimeout(timer);
    try {
      const state = await get('backup', undefined, page.signal);
      put(element, told(state));
      if (state.state === 'running') timer = setTimeout(look, STEP_MS);
    } catch (problem) {
      if (problem.name !== 'AbortError') put(element, explain(problem));
    }
  };
  return { element, look };
}

function backupForm(state) {
  const to = h('input', { required: true, pattern: '/.*', placeholder: '/var/backups/ebbgate.db', autocomplete: 'off' });
  const button = submitButton('Back up');
  return h('form', {
    class: 'inline-form',
    onsubmit: async (event) => {
      event.preventDefault();
      await act(button, () => post('backup', { to: to.value }));
      state.look();
    },
  }, field('Copy the database to', to, 'A new file on the gateway’s machine, by its whole path.'), button);
}

async function checkpoint() {
  const answer = await post('checkpoint');
  toast(`Done: the write-ahead log holds ${bytes(answer.wal_bytes)}`);
}

async function drain() {
  const sure = await confirm('Drain this gateway?', 'It takes no new connections, lets running turns end, tells everybody to come back later, and stops. Whatever supervises it may start it again.', 'Drain it');
  if (!sure) return;
  await post('drain');
  toast('The gateway is draining');
}

/** A box that asks nothing of the gateway before it is opened. */
export function maintenance(page) {
  const state = backupState(page);
  const box = h('details', { class: 'panel' }, h('summary', null, h('h2', null, 'Maintenance')),
    h('div', { class: 'stack' },
      backupForm(state),
      state.element,
      h('div', { class: 'buttons' },
        actButton('Checkpoint', checkpoint),
        actButton('Drain', drain, { kind: 'danger' }))));
  box.addEventListener('toggle', () => box.open && state.look());
  return box;
}
