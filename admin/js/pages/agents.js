/** Served names: their workers, and what waits for them. */
import { call, get, remove, seg } from '../api.js';
import { h, put } from '../dom.js';
import { count, plural, when } from '../format.js';
import { link } from '../router.js';
import { list, table } from '../table.js';
import { code, label, shellWord, visible } from '../text.js';
import { act, actButton, badge, confirm, empty, facts, field, submitButton, toast } from '../widgets.js';

const workerColumns = [
  { head: 'Worker', cell: (w) => code(w.worker_id) },
  { head: 'Program', cell: (w) => label(w.name) },
  { head: 'Sub', cell: (w) => label(w.sub) },
  { head: 'Turns', class: 'right num', cell: (w) => `${count(w.running)} of ${count(w.concurrency)}` },
  { head: 'Since', class: 'right', cell: (w) => when(w.since) },
  { head: 'Connection', class: 'right', cell: (w) => h('a', { href: link('connections', { agent: w.agent, sub: w.sub }) }, code(w.connection_id)) },
];

function serving(a) {
  if (a.workers.length > 0) return badge(plural(a.workers.length, 'worker'), 'good');
  return badge('no worker', a.queue_depth > 0 ? 'bad' : 'warn');
}

async function drop(a, again) {
  const sure = await confirm('Forget this agent?', ['New clients of ', label(a.id), ' are refused until it is registered or served again. Its sessions stay.'], 'Forget it');
  if (!sure) return;
  await remove(`agents/${seg(a.id)}`);
  toast(`Agent ${visible(a.id)} is forgotten`);
  again();
}

function card(a, again) {
  return h('section', { class: 'panel agent', 'data-key': a.id, 'aria-label': `Agent ${visible(a.id)}` },
    h('div', { class: 'panel-head' }, h('h2', null, label(a.id)), serving(a),
      h('div', { class: 'buttons end' },
        h('a', { class: 'button', href: link('sessions', { agent: a.id }) }, 'Sessions'),
        h('a', { class: 'button', href: link('chat', { agent: a.id }) }, 'Chat'),
        actButton('Forget', () => drop(a, again), { kind: 'danger', label: `Forget agent ${visible(a.id)}` }))),
    facts([
      ['Turns waiting', count(a.queue_depth)],
      ['Turns at work', count(a.open_turns)],
      ['Dead letters', a.dead_turns > 0 ? h('a', { href: link('dead') }, count(a.dead_turns)) : '0'],
      ['Oldest turn', when(a.oldest_waiting)],
      ['Registered', when(a.registered)],
    ]),
    a.workers.length > 0
      ? table(`Workers of ${visible(a.id)}`, workerColumns, a.workers.map((w) => ({ ...w, agent: a.id })), (w) => w.worker_id)
      : h('p', { class: 'soft' }, 'Nobody serves it now; messages wait. Attach a worker: ', h('code', null, `ebbgate agent --id ${shellWord(a.id) ?? 'ID'} --exec CMD`)));
}

function register(again) {
  const id = h('input', { required: true, maxlength: 128, autocomplete: 'off' });
  const button = submitButton('Register');
  return h('details', { class: 'panel' }, h('summary', null, h('h2', null, 'Register an agent')),
    h('form', {
      class: 'inline-form',
      onsubmit: async (event) => {
        event.preventDefault();
        const name = id.value.trim();
        if (await act(button, () => call('PUT', `agents/${seg(name)}`, { body: {} }))) {
          toast(`Agent ${visible(name)} is registered`);
          id.value = '';
          again();
        }
      },
    }, field('Id', id, 'Clients may talk to it from now on; messages wait until a worker serves it.'), button));
}

export function agents(page) {
  page.title('Agents');
  const again = () => rows.reload();
  const rows = list(page, {
    what: 'agents',
    words: ['Back', 'More'],
    everyMs: 4000,
    async load(next, signal) {
      const answer = await get('agents', { limit: 25, next }, signal);
      return { rows: answer.agents, next: answer.next };
    },
    draw: (found) => h('div', { class: 'stack' }, found.map((a) => card(a, again))),
    none: () => empty('No agents yet', 'An agent is known once a worker serves it, or when it is registered below.',
      h('pre', { class: 'block', tabindex: 0 }, 'ebbgate agent --id echo --exec cat')),
  });
  put(page.root, h('h1', null, 'Agents'), rows.element, register(again));
}
