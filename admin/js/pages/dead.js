/** Turns that no attempt could end: look, and give them another try. */
import { get, post, seg } from '../api.js';
import { h, put } from '../dom.js';
import { clock, count, plural } from '../format.js';
import { link } from '../router.js';
import { list, table } from '../table.js';
import { code, label } from '../text.js';
import { actButton, confirm, empty, toast } from '../widgets.js';

const again = (t) => post(`turns/${seg(t.session_id)}/${t.turn}/retry`);

async function retryAll(turns) {
  if (!await confirm(`Try ${plural(turns.length, 'message')} again?`, 'Each becomes a new turn at the end of its session’s queue.', 'Try them')) return;
  let done = 0;
  let gone = 0;
  let closed = 0;
  try {
    for (const t of turns) {
      try {
        await again(t);
        done += 1;
      } catch (problem) {
        if (problem.status === 404) gone += 1;
        else if (problem.code === 'session_closed') closed += 1;
        else throw problem;
      }
    }
  } finally {
    toast([`${count(done)} of ${plural(turns.length, 'message')} said again`,
      gone && `${count(gone)} no longer here: somebody else saw to it`,
      closed && `${count(closed)} in a session that is closed`].filter(Boolean).join('; '));
  }
}

const columns = (reload) => [
  { head: 'Session', class: 'shrink', cell: (t) => h('a', { href: link(['sessions', t.session_id]) }, code(t.session_id)) },
  { head: 'Turn', class: 'right num', cell: (t) => count(t.turn) },
  { head: 'Agent', cell: (t) => label(t.agent) },
  { head: 'Attempts', class: 'right num', cell: (t) => count(t.attempt) },
  { head: 'Said', class: 'right', cell: (t) => clock(t.created) },
  { head: 'Last failure', class: 'wide', cell: (t) => label(t.error) },
  {
    head: '',
    class: 'right',
    cell: (t) => actButton('Try again', async () => {
      try {
        const answer = await again(t);
        toast(`Said again as turn ${count(answer.turn)}`);
      } finally {
        reload();
      }
    }, { kind: 'quiet', label: `Try turn ${t.turn} of session ${t.session_id} again` }),
  },
];

export function dead(page) {
  page.title('Dead letters');
  let found = [];
  const reload = () => rows.reload();
  const all = actButton('Try all of these again', async () => {
    try {
      await retryAll(found);
    } finally {
      reload();
    }
  });
  const rows = list(page, {
    what: 'dead letters',
    words: ['Back', 'More'],
    everyMs: 6000,
    async load(next, signal) {
      const answer = await get('turns', { state: 'dead', limit: 50, next }, signal);
      found = answer.turns;
      all.hidden = found.length < 2;
      return { rows: found, next: answer.next };
    },
    draw: (turns) => table('Dead letters', columns(reload), turns, (t) => `${t.session_id} ${t.turn}`),
    none: () => empty('No dead letters', 'A message lands here when its agent failed on it as often as max_attempts allows, or for longer than max_turn_age.'),
  });
  all.hidden = true;
  put(page.root,
    h('div', { class: 'page-head' }, h('h1', null, 'Dead letters'), all),
    h('p', { class: 'soft intro' }, 'Their sessions were answered with an error. Trying again says the same message as a new turn.'),
    rows.element);
}
