/** The log as it is stored: one line an event, its JSON behind it. */
import { h, put } from './dom.js';
import { bytes, clock, count } from './format.js';
import { code, jsonBlock, label, visible } from './text.js';
import { empty } from './widgets.js';

const SHOWN = 500;

function preview(event) {
  const { type, session_id, cursor, seq, event_id, timestamp, source, turn, ...rest } = event;
  return visible(JSON.stringify(rest.data ?? rest).slice(0, 300));
}

function line(event, onFork) {
  const live = !Number.isSafeInteger(event.cursor);
  const box = h('details', { class: 'event' },
    h('summary', null,
      h('span', { class: 'num right' }, live ? 'live' : count(event.cursor)),
      event.timestamp ? clock(event.timestamp) : h('span'),
      code(event.type),
      label(event.source),
      h('span', { class: 'num soft' }, event.turn === undefined ? '' : `turn ${count(event.turn)}`),
      h('span', { class: 'mono soft preview' }, preview(event))));
  box.addEventListener('toggle', () => {
    if (!box.open || box.childElementCount > 1) return;
    box.append(h('div', { class: 'event-body' },
      h('div', { class: 'buttons' }, h('small', null, `${bytes(new Blob([JSON.stringify(event)]).size)} as stored`),
        !live && onFork && h('button', { type: 'button', class: 'quiet', onclick: () => onFork(event.cursor) }, 'Fork here')),
      jsonBlock(event)));
  });
  return box;
}

/**
 * `{ element, show(events), add(event) }`; `onFork(cursor)`. Draws SHOWN events at a time: the last ones as they come,
 * or others that the reader went to.
 */
export function rawView({ onFork }) {
  const pick = h('select', { 'aria-label': 'Types' });
  const rows = h('div', { class: 'events' });
  const note = h('p', { class: 'soft' });
  const up = h('button', { type: 'button', hidden: true, onclick: () => go(-1) }, 'Earlier ones');
  const down = h('button', { type: 'button', hidden: true, onclick: () => go(1) }, 'Later ones');
  const element = h('div', { class: 'raw' }, h('div', { class: 'raw-head' }, pick, note, up, down), rows);
  let events = [];
  let last = null; // the last one drawn; null: the end, and whatever comes
  const types = new Map();

  const fits = (event) => pick.value === '' || event.type === pick.value;
  function options() {
    const kept = pick.value;
    put(pick, h('option', { value: '' }, `All types (${count(events.length)})`),
      [...types].sort().map(([type, n]) => h('option', { value: type }, `${visible(type)} (${count(n)})`)));
    pick.value = types.has(kept) ? kept : '';
  }
  /** Those that fit, and which of them are drawn: `from` up to before `to`. */
  function part() {
    const found = events.filter(fits);
    const to = last === null ? found.length : found.indexOf(last) + 1;
    return { found, to, from: Math.max(0, to - SHOWN) };
  }
  function tell({ found, from, to }) {
    put(note, found.length > SHOWN ? `${count(from + 1)} to ${count(to)} of ${count(found.length)} loaded` : '');
    up.hidden = from === 0;
    down.hidden = to === found.length;
  }
  function draw() {
    const here = part();
    put(rows, here.to > 0 ? here.found.slice(here.from, here.to).map((event) => line(event, onFork)) : empty('No events here', 'Earlier ones may be further up in the log.'));
    tell(here);
  }
  /** Draws so that the one at `to` is behind the last one. */
  function goTo(found, to) {
    last = to < found.length ? found[to - 1] : null;
    draw();
  }
  function go(step) {
    const { found, to } = part();
    goTo(found, Math.max(SHOWN, to + step * SHOWN));
  }
  const tally = (event) => types.set(event.type, (types.get(event.type) ?? 0) + 1);
  pick.addEventListener('change', () => {
    last = null;
    draw();
  });
  pick.addEventListener('blur', options);
  return {
    element,
    show(list) {
      const more = list.length - events.length;
      const earlier = more > 0 && events.length > 0 && list[more] === events[0];
      events = list;
      types.clear();
      events.forEach(tally);
      options();
      if (earlier) {
        goTo(events.filter(fits), SHOWN); // the reader asked for them
      } else {
        last = null;
        draw();
      }
    },
    /** `list` has grown by `event`. */
    add(event) {
      tally(event);
      if (document.activeElement !== pick) options(); // not under the hands of who chooses
      if (!fits(event)) return;
      if (last !== null) {
        tell(part());
        return;
      }
      if (rows.firstElementChild && !rows.firstElementChild.matches('details')) put(rows);
      rows.append(line(event, onFork));
      if (rows.childElementCount <= SHOWN) return;
      rows.firstElementChild.remove();
      tell(part());
    },
  };
}
