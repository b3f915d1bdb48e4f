/** What stands beside a conversation: facts, turns with their attempts, who is here, who read how far. */
import { post, remove, seg } from './api.js';
import { h } from './dom.js';
import { bytes, clock, count, when } from './format.js';
import { busyIn, redraw } from './redraw.js';
import { link } from './router.js';
import { code, label, visible } from './text.js';
import { actButton, badge, facts, panel, toast, turnBadge } from './widgets.js';

function turnRow(id, turn, changed) {
  const retry = async () => {
    const answer = await post(`turns/${seg(id)}/${turn.turn}/retry`);
    toast(`Said again as turn ${count(answer.turn)}`);
    changed();
  };
  const until = { running: 'lease ends ', waiting: 'next try ', aborting: 'grace ends ' }[turn.state];
  return h('li', { 'data-key': `turn ${turn.turn}` },
    h('div', { class: 'row' }, h('strong', { class: 'num' }, `Turn ${count(turn.turn)}`), turnBadge(turn.state),
      h('small', null, `attempt ${count(turn.attempt)}`),
      turn.state === 'dead' && actButton('Try again', retry, { kind: 'quiet', label: `Try turn ${turn.turn} again` })),
    turn.worker_id && h('small', null, 'worker ', code(turn.worker_id)),
    until && turn.until !== null && h('small', null, until, clock(turn.until)),
    turn.error && h('small', { class: 'bad' }, label(turn.error)));
}

function connectionRow(c, changed) {
  const drop = async () => {
    await remove(`connections/${c.id}`);
    toast(`${visible(c.sub ?? 'The connection')} was told to go`);
    changed();
  };
  return h('li', { 'data-key': c.id },
    h('div', { class: 'row' }, label(c.sub), c.mode !== 'ws' && badge(visible(c.mode)),
      actButton('Disconnect', drop, { kind: 'quiet danger', label: `Disconnect ${visible(c.sub ?? c.id)}` })),
    h('small', null, code(c.address), ' ', label([c.client.name, c.client.version].filter(Boolean).join(' ')), ', since ', when(c.since)));
}

const listed = (rows, none) => (rows.length ? h('ul', { class: 'rows' }, rows) : h('p', { class: 'soft' }, none));

function sections(detail, changed) {
  return [
    h('div', { 'data-key': 'session' }, panel('Session', facts([
      ['Agent', h('a', { href: link('sessions', { agent: detail.agent }) }, label(detail.agent))],
      ['Owner', h('a', { href: link('sessions', { owner: detail.owner }) }, label(detail.owner))],
      ['Events', `${count(detail.cursor)}${detail.oldest_cursor > 1 ? `, kept from ${count(detail.oldest_cursor)}` : ''}`],
      ['Size', bytes(detail.bytes)],
      ['Begun', clock(detail.created)],
      ['Last active', when(detail.last_activity)],
      detail.closed !== null && ['Closed', clock(detail.closed)],
      ['Last worker', label(detail.last_worker)],
    ]))),
    panel('Open and dead turns', listed(detail.turns.map((t) => turnRow(detail.id, t, changed)), 'None: every message was answered.')),
    panel('Connected', listed(detail.connections.map((c) => connectionRow(c, changed)), 'Nobody is in this session now.')),
    panel('Read up to', listed(detail.acked.map((a) => h('li', null, h('div', { class: 'row' }, label(a.sub), h('span', { class: 'num' }, `#${count(a.cursor)}`)))), 'Nobody acknowledged anything.')),
  ];
}

/** `{ element, draw(detail) }`; a drawing is left out while the reader holds something in it. */
export function sideView(changed, signal) {
  const stack = h('div', { class: 'side-stack' });
  const element = h('details', { class: 'side-panels' }, h('summary', null, 'About this session'), stack);
  // Beside the conversation it is always open; above it, on a narrow screen, it waits to be opened.
  const room = matchMedia('(min-width: 1101px)');
  const fit = () => (element.open = room.matches);
  room.addEventListener('change', fit, { signal });
  fit();
  let shown = '';
  return {
    element,
    draw(detail) {
      const now = JSON.stringify({ ...detail, connections: detail.connections.map(({ id, sub }) => [id, sub]) });
      if (now === shown && Date.now() - this.at < 30000) return;
      if (busyIn(stack)) return;
      shown = now;
      this.at = Date.now();
      redraw(stack, sections(detail, changed));
    },
    at: 0,
  };
}
