/** Draws a conversation: one article a turn. Grows with its events, at most once a frame. */
import { asText, Conversation, streamed } from './conversation.js';
import { h, put } from './dom.js';
import { clock, count } from './format.js';
import { jsonBlock, label, prose, visible } from './text.js';
import { actButton, badge } from './widgets.js';

const OUTCOME = { ok: ['answered', 'good'], error: ['error', 'bad'], aborted: ['aborted', 'warn'], rejected: ['rejected', 'warn'], streaming: ['answering', 'live'], waiting: ['waiting', ''] };

/** `client:alice` as a name and what it is. */
function speaker(source, { me, mine }) {
  if (!source || source === mine) return h('span', { class: 'who-said' }, me ?? 'you');
  const at = source.indexOf(':');
  const [role, name] = at < 0 ? ['', source] : [source.slice(0, at), source.slice(at + 1)];
  return h('span', { class: 'who-said' }, label(name), role && role !== 'client' && h('small', null, ` ${visible(role)}`));
}

function content(value) {
  const text = asText(value);
  if (text === null) return jsonBlock(value);
  const body = prose();
  body.set(text);
  return body.element;
}

const more = (title, ...inside) => h('details', { class: 'part' }, h('summary', null, title), inside);

/** A details element whose JSON is made when it is opened. */
function lazyJson(title, value) {
  const box = more(title);
  box.addEventListener('toggle', () => {
    if (box.open && box.childElementCount === 1) box.append(jsonBlock(value()));
  });
  return box;
}

/** `{ element, update() }` for one part of a turn. */
function partView(part) {
  if (part.kind === 'text') {
    const body = prose();
    return { element: body.element, update: () => body.set(part.text) };
  }
  if (part.kind === 'reasoning') {
    const body = prose('prose soft');
    return { element: more('Reasoning', body.element), update: () => body.set(part.text) };
  }
  if (part.kind === 'tool') return toolView(part);
  if (part.kind === 'status') {
    const line = h('p', { class: 'part-line' });
    return { element: line, update: () => put(line, visible(part.text)) };
  }
  const fixed = {
    fault: () => h('p', { class: 'part-line bad' }, 'The stream broke: ', label(part.text)),
    again: () => h('p', { class: 'part-line' }, 'Begun again: what stands above was withdrawn.'),
    abort: () => h('p', { class: 'part-line warn' }, 'Abort asked for', part.source && [' by ', label(part.source)], part.reason && [': ', label(part.reason)]),
    other: () => lazyJson(visible(part.event.type), () => part.event.data ?? part.event),
  };
  return { element: fixed[part.kind](), update() {} };
}

function toolView(part) {
  const state = h('span');
  const element = h('details', { class: 'part tool' }, h('summary', null, h('span', { class: 'soft' }, 'Tool '), label(part.name ?? 'without a name', 'mono'), ' ', state));
  const body = h('div');
  element.append(body);
  const draw = () => element.open && put(body,
    part.call !== undefined && [h('h3', null, 'Call'), jsonBlock(part.call)],
    part.result !== undefined && [h('h3', null, 'Result'), jsonBlock(part.result)]);
  element.addEventListener('toggle', draw);
  return {
    element,
    update() {
      put(state, part.result !== undefined ? badge('done', 'good') : badge(part.progress ? `at work, ${count(part.progress)}` : 'at work', 'live'));
      draw();
    },
  };
}

class TurnView {
  constructor(item, options) {
    this.item = item;
    this.options = options;
    this.views = [];
    this.said = h('div', { class: 'said' });
    this.answer = h('div', { class: 'answer' });
    this.outcome = h('div', { class: 'outcome' });
    this.element = h('article', { class: 'turn', 'aria-label': `Turn ${item.turn}`, 'data-turn': item.turn }, this.said, this.answer, this.outcome);
    put(this.said, h('p', { class: 'soft' }, `Turn ${count(item.turn)}: its message is further up in the log, or was trimmed.`));
  }

  update() {
    const { item } = this;
    if (item.message && !this.drawnMessage) this.drawMessage(item.message);
    // Only the last part grows, but others may have come in the same frame; tools change at any time.
    const from = Math.max(0, this.views.length - 1);
    item.parts.forEach((part, i) => {
      if (this.views[i]?.part !== part) {
        this.views[i]?.view.element.remove();
        this.views[i] = { part, view: partView(part) };
        this.answer.append(this.views[i].view.element);
      } else if (i < from && part.kind !== 'tool') {
        return;
      }
      this.views[i].view.update();
    });
    if (item.final && !this.drawnFinal) this.drawFinal(item.final);
    this.drawOutcome();
  }

  drawMessage(event) {
    this.drawnMessage = true;
    const { data } = event;
    put(this.said,
      h('header', null, speaker(event.source, this.options), event.timestamp && clock(event.timestamp), h('span', { class: 'soft num' }, `#${count(event.cursor)}`)),
      content(data?.content),
      data?.metadata && lazyJson('Metadata', () => data.metadata));
  }

  /** The final text; when it is not what was streamed, that moves behind a fold. */
  drawFinal(event) {
    this.drawnFinal = true;
    const text = asText(event.content);
    const before = streamed(this.item);
    if (event.content === undefined || event.content === null || text === '' || (text !== null && text.trimEnd() === before.trimEnd())) return;
    if (before) {
      const texts = this.views.filter(({ part }) => part.kind === 'text').map(({ view }) => view.element);
      const fold = more('What was streamed before');
      texts[0].before(fold);
      fold.append(...texts);
    }
    this.answer.append(content(event.content));
  }

  drawOutcome() {
    const { item, options } = this;
    const [text, kind] = OUTCOME[item.status] ?? [visible(item.status), ''];
    const { status, ...rest } = item.outcome ?? {};
    const why = typeof rest.message === 'string' ? rest.message : typeof rest.error === 'string' ? rest.error : rest.code;
    const key = `${item.status} ${item.delivery}`;
    if (key === this.outcomeKey) return;
    this.outcomeKey = key;
    put(this.outcome,
      badge(text, kind),
      item.delivery && h('small', null, item.delivery),
      why !== undefined && h('small', null, label(String(why))),
      item.final && h('small', null, label(item.final.source), ' ', clock(item.final.timestamp), ` #${count(item.final.cursor)}`),
      Object.keys(rest).length > 0 && lazyJson('Outcome', () => item.outcome),
      item.final && options.onFork && actButton('Fork here', () => options.onFork(item.final.cursor), { kind: 'quiet', label: `Fork after turn ${item.turn}` }));
  }
}

function noteView(item) {
  const { event } = item;
  const reason = event.data?.reason;
  const title = event.type === 'session_end' ? ['The session ended', reason && [': ', label(reason)]]
    : event.type === 'fork' ? 'Forked' : [label(event.type), ' from ', label(event.source)];
  const text = asText(event.data?.content ?? event.data?.text);
  const element = h('article', { class: 'note' }, h('header', null, h('span', null, title), event.timestamp && clock(event.timestamp)),
    text !== null && content(text),
    event.data !== undefined && event.type !== 'session_end' && lazyJson('Data', () => event.data));
  return { element, update() {} };
}

/**
 * A conversation in an element. `options`: `{ me, mine, onFork(cursor) }`: what is said by
 * `mine`, or by nobody named, is said by `me`.
 * `show(events)` begins anew, `add(event)` goes on.
 */
export function conversationView(options = {}) {
  const element = h('div', { class: 'talk', role: 'log', 'aria-live': 'off', 'aria-label': 'Conversation' });
  let talk = new Conversation();
  let views = new Map();
  let dirty = new Set();
  let asked = false;

  const atEnd = () => {
    const page = document.scrollingElement;
    return page.scrollHeight - page.scrollTop - page.clientHeight < 80;
  };
  const toEnd = () => scrollTo(0, document.scrollingElement.scrollHeight);

  function flush(stay) {
    asked = false;
    const follow = !stay && options.follow !== false && atEnd();
    for (const item of dirty) {
      let view = views.get(item);
      if (!view) {
        view = item.kind === 'turn' ? new TurnView(item, options) : noteView(item);
        views.set(item, view);
        element.append(view.element);
      }
      view.update();
    }
    dirty = new Set();
    if (follow) toEnd();
  }
  return {
    element,
    toEnd,
    get size() {
      return talk.items.length;
    },
    get open() {
      return [...talk.turns.values()].some((item) => item.final === null);
    },
    add(event) {
      const item = talk.apply(event);
      if (!item) return;
      dirty.add(item);
      if (!asked) {
        asked = true;
        requestAnimationFrame(() => flush(false));
      }
    },
    show(events) {
      talk = new Conversation();
      views = new Map();
      put(element);
      dirty = new Set(events.map((event) => talk.apply(event)).filter(Boolean));
      flush(true);
    },
  };
}
