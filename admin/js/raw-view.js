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

/** `{ element, show(events), add(event) }`; `onFork(cursor)`. */
export function rawView({ onFork }) {
  const pick = h('select', { 'aria-label': 'Types' });
  const rows = h('div', { class: 'events' });
  const note = h('p', { class: 'soft' });
  const element = h('div', { class: 'raw' }, h('div', { class: 'raw-head' }, pick, note), rows);
  let events = [];
  const types = new Map();

  const fits = (event) => pick.value === '' || event.type === pick.value;
  function options() {
    const kept = pick.value;
    put(pick, h('option', { value: '' }, `All types (${count(events.length)})`),
      [...types].sort().map(([type, n]) => h('option', { value: type }, `${visible(type)} (${count(n)})`)));
    pick.value = types.has(kept) ? kept : '';
  }
  function tell(shown) {
    put(note, shown > SHOWN ? `The last ${SHOWN} of ${count(shown)} loaded` : '');
  }
  function draw() {
    const found = events.filter(fits);
    put(rows, found.length ? found.slice(-SHOWN).map((event) => line(event, onFork)) : empty('No events here', 'Earlier ones may be further up in the log.'));
    tell(found.length);
  }
  const tally = (event) => types.set(event.type, (types.get(event.type) ?? 0) + 1);
  pick.addEventListener('change', draw);
  return {
    element,
    show(list) {
      events = list;
      types.clear();
      events.forEach(tally);
      options();
      draw();
    },
    /** `list` has grown by `event`. */
    add(event) {
      tally(event);
      options();
      if (!fits(event)) return;
      if (rows.firstElementChild && !rows.firstElementChild.matches('details')) put(rows);
      rows.append(line(event, onFork));
      if (rows.childElementCount > SHOWN) rows.firstElementChild.remove();
    },
  };
}
