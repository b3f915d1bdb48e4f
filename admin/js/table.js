/**
 * Tables of pages: columns, paging by the API's opaque `next`, states, and refreshing. On a narrow screen each
 * row is drawn as a card (the roles keep it a table).
 */
import { h, put } from './dom.js';
import { busyIn, redraw, released } from './redraw.js';
import { failure, loading } from './widgets.js';

/** A table. Columns: `{ head, cell(row), class? }`; `key(row)` tells rows apart. */
export function table(caption, columns, rows, key) {
  return h(
    'table',
    { class: 'grid', role: 'table' },
    h('caption', { class: 'hidden-text' }, caption),
    h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, columns.map((c) => h('th', { scope: 'col', role: 'columnheader', class: c.class }, c.head)))),
    h('tbody', { role: 'rowgroup' }, rows.map((row) =>
      h('tr', { role: 'row', 'data-key': key(row) }, columns.map((c) =>
        h('td', { role: 'cell', class: c.class, 'data-head': c.head }, h('div', { class: 'cell' }, c.cell(row))))))),
  );
}

/**
 * A list that loads itself.
 *
 * @param page  the page (for its signal and timer)
 * @param o     `{ what, load(next, signal) → { rows, next }, draw(rows) → element, none() → element, everyMs? }`
 * @returns `{ element, reload() }`: reload begins again at the first page
 */
export function list(page, o) {
  const body = h('div', { class: 'list' });
  const status = h('small', { class: 'list-status', role: 'status' });
  const back = h('button', { type: 'button', onclick: () => go(-1) }, '← Newer');
  const on = h('button', { type: 'button', onclick: () => go(1) }, 'Older →');
  if (o.words) [back.textContent, on.textContent] = [`← ${o.words[0]}`, `${o.words[1]} →`];
  const pager = h('nav', { class: 'pager', 'aria-label': 'Pages', hidden: true }, back, on, status);
  const element = h('div', null, body, pager);
  let starts = [undefined]; // `next` that leads to each page so far
  let at = 0;
  let turn = 0;

  /** `quiet`: a refresh that nobody asked for. What is there stays until its successor has come. */
  async function show(quiet) {
    turn += 1;
    const mine = turn;
    if (!body.querySelector('[data-key]')) put(body, loading(`Loading ${o.what} …`));
    if (!quiet) body.setAttribute('aria-busy', 'true');
    try {
      const { rows, next } = await o.load(starts[at], page.signal);
      if (!quiet) await released(body);
      if (mine !== turn || (quiet && busyIn(body))) return;
      starts = [...starts.slice(0, at + 1), ...(next ? [next] : [])];
      redraw(body, rows.length > 0 || at > 0 ? o.draw(rows) : o.none());
      pager.hidden = at === 0 && !next;
      back.disabled = at === 0;
      on.disabled = !next;
      status.textContent = `Page ${at + 1}${next ? '' : ', the last'}`;
    } catch (problem) {
      if (problem.name === 'AbortError' || mine !== turn) return;
      if (!quiet || problem.status !== 0) put(body, failure(problem, () => show(false)));
    } finally {
      if (mine === turn) body.removeAttribute('aria-busy');
    }
  }
  async function go(step) {
    at += step;
    await show(false);
    body.scrollIntoView({ block: 'nearest' });
    (on.disabled ? back : on).focus();
  }
  const reload = () => {
    starts = [undefined];
    at = 0;
    return show(false);
  };
  if (o.everyMs) page.every(o.everyMs, () => show(true));
  show(false);
  return { element, reload, refresh: () => show(true) };
}

/**
 * A form of filters bound to the address bar: `onchange` is called with the new values.
 * `controls`: `[[name, labelledElement, input], …]`.
 */
export function filters(page, controls, onchange) {
  const read = () => Object.fromEntries(controls.map(([name, , input]) => [name, input.value.trim()]).filter(([, v]) => v !== ''));
  let timer;
  let applied;
  const changed = () => {
    clearTimeout(timer);
    const values = read();
    const text = JSON.stringify(values);
    if (page.signal.aborted || text === applied) return;
    applied = text;
    page.setQuery(values);
    onchange(values);
  };
  const form = h('form', {
    class: 'filters',
    role: 'search',
    onsubmit: (e) => (e.preventDefault(), changed()),
    onchange: changed,
    oninput: () => {
      clearTimeout(timer);
      timer = setTimeout(changed, 300);
    },
  }, controls.map(([, labelled]) => labelled));
  for (const [name, , input] of controls) input.value = page.query.get(name) ?? '';
  applied = JSON.stringify(read());
  return { element: form, values: read };
}
