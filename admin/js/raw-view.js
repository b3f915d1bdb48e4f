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
  let from = 0; // of those that fit, the first one drawn
  let to = 0; // and the one behind the last
  let atEnd = true; // the last ones are drawn, and whatever comes
  const types = new Map();

  const fits = (event) => pick.value === '' || event.type === pick.value;
  function options() {
    const kept = pick.value;
    put(pick, h('option', { value: '' }, `All types (${count(events.length)})`),
      [...types].sort().map(([type, n]) => h('option', { value: type }, `${visible(type)} (${count(n)})`)));
    pick.value = types.has(kept) ? kept : '';
  }
  function tell() {
    const all = pick.value === '' ? events.length : types.get(pick.value) ?? 0; // that fit
    put(note, all > SHOWN ? `${count(from + 1)} to ${count(to)} of ${count(all)} loaded` : '');
    up.hidden = from === 0;
    down.hidden = to === all;
  }
  /** Draws those before the one at `end`. */
  function draw(end = Infinity) {
    const found = events.filter(fits);
    to = Math.min(end, found.length);
    from = Math.max(0, to - SHOWN);
    atEnd = to === found.length;
    put(rows, to > 0 ? found.slice(from, to).map((event) => line(event, onFork)) : empty('No events here', 'Earlier ones may be further up in the log.'));
    tell();
  }
  const go = (step) => draw(Math.max(SHOWN, to + step * SHOWN));
  const tally = (event) => types.set(event.type, (types.get(event.type) ?? 0) + 1);
  pick.addEventListener('change', () => draw());
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
      draw(earlier ? SHOWN : Infinity); // earlier ones: the reader asked for them
    },
    /** `list` has grown by `event`. */
    add(event) {
      tally(event);
      if (document.activeElement !== pick) options(); // not under the hands of who chooses
      if (!fits(event)) return;
      if (atEnd) {
        if (to === 0) put(rows);
        rows.append(line(event, onFork));
        to += 1;
        if (to - from > SHOWN) {
          rows.firstElementChild.remove();
          from += 1;
        }
      }
      tell();
    },
  };
}
