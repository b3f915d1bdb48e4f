/** Every session, the latest active first: search and filters. */
import { get } from '../api.js';
import { h, put } from '../dom.js';
import { bytes, count, when } from '../format.js';
import { link } from '../router.js';
import { filters, list, table } from '../table.js';
import { code, label } from '../text.js';
import { badge, empty, field, sessionBadge } from '../widgets.js';

const SINCE = [['', 'any time'], ['3600', 'the last hour'], ['86400', 'the last day'], ['604800', 'the last week']];

const columns = [
  { head: 'Session', cell: (s) => h('a', { href: link(['sessions', s.id]) }, code(s.id)) },
  { head: 'Agent', cell: (s) => label(s.agent) },
  { head: 'Owner', cell: (s) => label(s.owner) },
  { head: 'State', cell: (s) => [sessionBadge(s.state), s.open_turn !== null && badge('turn open', 'live')] },
  { head: 'Events', class: 'right num', cell: (s) => count(s.cursor) },
  { head: 'Size', class: 'right num', cell: (s) => bytes(s.bytes) },
  { head: 'Here', class: 'right num', cell: (s) => count(s.connections) },
  { head: 'Last active', class: 'right', cell: (s) => when(s.last_activity) },
];

function none(values) {
  return Object.keys(values).length > 0
    ? empty('No session is like that', 'Take away a filter. Search looks for a part of the id, as it is written.',
      h('a', { class: 'button', href: link('sessions') }, 'Show all'))
    : empty('No sessions yet', 'A session begins when somebody talks to an agent.', h('a', { class: 'button', href: link('chat') }, 'Start one in Chat'));
}

export function sessions(page) {
  page.title('Sessions');
  const q = h('input', { type: 'search', placeholder: 'part of an id', autocomplete: 'off', maxlength: 128 });
  const agent = h('input', { autocomplete: 'off', placeholder: 'all' });
  const owner = h('input', { autocomplete: 'off', placeholder: 'all' });
  const state = h('select', null, ['', 'open', 'closed'].map((v) => h('option', { value: v }, v || 'any')));
  const since = h('select', null, SINCE.map(([v, text]) => h('option', { value: v }, text)));
  const form = filters(page, [
    ['q', field('Search', q), q],
    ['agent', field('Agent', agent), agent],
    ['owner', field('Owner', owner), owner],
    ['state', field('State', state), state],
    ['active', field('Active in', since), since],
  ], () => rows.reload());
  const rows = list(page, {
    what: 'sessions',
    everyMs: 5000,
    async load(next, signal) {
      const { active, ...rest } = form.values();
      const query = { ...rest, active_since: active ? Math.floor(Date.now() / 1000) - Number(active) : '', limit: 50, next };
      const answer = await get('sessions', query, signal);
      return { rows: answer.sessions, next: answer.next };
    },
    draw: (found) => table('Sessions', columns, found, (s) => s.id),
    none: () => none(form.values()),
  });
  put(page.root, h('h1', null, 'Sessions'), form.element, rows.element);
}
