/** Who is connected now. */
import { get, remove } from '../api.js';
import { h, put } from '../dom.js';
import { bytes, count, when } from '../format.js';
import { link } from '../router.js';
import { filters, list, table } from '../table.js';
import { code, label, visible } from '../text.js';
import { actButton, badge, confirm, empty, field, toast } from '../widgets.js';

const program = (c) => [c.client.name, c.client.version].filter(Boolean).join(' ');

async function disconnect(c, again) {
  const sure = await confirm('Disconnect?', [
    label(c.sub ?? 'a connection'), ' at ', label(c.address), ' is told to go. Its program may come back at once: revoke its token to keep it away.',
  ], 'Disconnect');
  if (!sure) return;
  await remove(`connections/${c.id}`);
  toast(`${visible(c.sub ?? 'The connection')} was told to go`);
  again();
}

const columns = (again) => [
  { head: 'Who', cell: (c) => (c.sub ? label(c.sub) : h('span', { class: 'soft' }, 'not yet known')) },
  { head: 'As', cell: (c) => [badge(c.role === 'agent' ? 'worker' : 'client', c.role === 'agent' ? 'live' : ''), c.mode !== 'ws' && badge(visible(c.mode))] },
  { head: 'Agent', cell: (c) => label(c.agent) },
  { head: 'Session', class: 'shrink', cell: (c) => (c.session_id ? h('a', { href: link(['sessions', c.session_id]) }, code(c.session_id)) : label(null)) },
  { head: 'Address', cell: (c) => code(c.address) },
  { head: 'Program', cell: (c) => label(program(c)) },
  { head: 'Queue', class: 'right num', cell: (c) => (c.queue.frames ? `${count(c.queue.frames)} (${bytes(c.queue.bytes)})` : '0') },
  { head: 'In, out', class: 'right num', cell: (c) => `${count(c.received_frames)}, ${count(c.sent_frames)}` },
  { head: 'Since', class: 'right', cell: (c) => when(c.since) },
  { head: '', class: 'right', cell: (c) => actButton('Disconnect', () => disconnect(c, again), { kind: 'quiet danger', label: `Disconnect ${visible(c.sub ?? c.id)}` }) },
];

export function connections(page) {
  page.title('Connections');
  const inputs = ['sub', 'agent', 'session'].map((name) => [name, h('input', { autocomplete: 'off', placeholder: 'all' })]);
  const names = { sub: 'Sub', agent: 'Agent', session: 'Session' };
  const again = () => rows.refresh();
  const form = filters(page, inputs.map(([name, input]) => [name, field(names[name], input), input]), () => rows.reload());
  const rows = list(page, {
    what: 'connections',
    words: ['Back', 'More'],
    everyMs: 4000,
    async load(next, signal) {
      const answer = await get('connections', { ...form.values(), limit: 100, next }, signal);
      return { rows: answer.connections, next: answer.next };
    },
    draw: (found) => table('Connections', columns(again), found, (c) => c.id),
    none: () => (Object.keys(form.values()).length > 0
      ? empty('Nobody is connected like that', 'Filters match whole names.', h('a', { class: 'button', href: link('connections') }, 'Show all'))
      : empty('Nobody is connected', 'Clients and workers appear here while they are connected.')),
  });
  put(page.root, h('h1', null, 'Connections'), form.element, rows.element);
}
