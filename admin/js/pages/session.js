/** One session: its conversation, live; the raw log; what can be done to it. */
import { get, seg } from '../api.js';
import { conversationView } from '../conversation-view.js';
import { h, put } from '../dom.js';
import { count, span } from '../format.js';
import { Log } from '../log.js';
import { rawView } from '../raw-view.js';
import { link } from '../router.js';
import { actButtons, fork, sayForm } from '../session-acts.js';
import { sideView } from '../session-side.js';
import { code, visible } from '../text.js';
import { act, badge, empty, failure, loading, sessionBadge } from '../widgets.js';

const DETAIL_MS = 4000;
/** After these, what stands beside the conversation has changed. */
const TELLING = new Set(['message', 'response', 'message_abort', 'session_end']);

/** The line that says whether what one sees is live. */
function tailState() {
  const element = h('span', { class: 'tail', role: 'status' });
  const words = {
    connecting: () => ['', 'connecting …'],
    live: () => ['good', 'live'],
    waiting: (ms) => ['warn', `lost, again in ${span(ms / 1000 + 0.5)}`],
    ended: () => ['', 'ended'],
    failed: (problem) => ['bad', `not live: ${problem.title}`],
  };
  return {
    element,
    set(name, detail) {
      const [kind, text] = words[name](detail);
      put(element, h('span', { class: `light ${kind}` }), text);
    },
  };
}

/** Two views of one log, and the buttons that switch between them. */
function views(page, id) {
  const onFork = (cursor) => fork(id, cursor);
  const talk = conversationView({ onFork, me: 'unknown' });
  const raw = rawView({ onFork: (cursor) => onFork(cursor).catch((problem) => put(raw.element, failure(problem))) });
  const names = [['talk', 'Conversation', talk], ['raw', 'Raw events', raw]];
  let current = page.query.get('view') === 'raw' ? 'raw' : 'talk';
  const buttons = names.map(([name, text]) => h('button', { type: 'button', onclick: () => choose(name) }, text));
  let log = null;
  function choose(name) {
    current = name;
    page.setQuery(name === 'raw' ? { view: 'raw' } : {});
    draw();
  }
  function draw() {
    names.forEach(([name, , view], i) => {
      buttons[i].setAttribute('aria-pressed', String(name === current));
      view.element.hidden = name !== current;
      if (name === current && log) view.show(log.events);
    });
  }
  const shown = () => (current === 'raw' ? raw : talk);
  return {
    switcher: h('div', { class: 'switch', role: 'group', 'aria-label': 'View' }, buttons),
    body: h('div', null, talk.element, raw.element),
    talk,
    reset(theLog) {
      log = theLog;
      draw();
    },
    add: (event) => shown().add(event),
  };
}

function head(id, tail, switcher, acts) {
  const state = h('span');
  return {
    state,
    element: h('div', { class: 'session-head' },
      h('div', null,
        h('a', { href: link('sessions'), class: 'back' }, '← Sessions'),
        h('h1', null, code(id)),
        h('div', { class: 'session-line' }, state, tail.element, switcher)),
      acts.element),
  };
}

export async function session(page) {
  const { id } = page;
  page.title(`Session ${visible(id)}`);
  put(page.root, h('h1', null, code(id)), loading('Loading the session …'));
  const load = () => get(`sessions/${seg(id)}`, undefined, page.signal);
  let detail;
  try {
    detail = await load();
  } catch (problem) {
    if (problem.name === 'AbortError') throw problem;
    put(page.root, h('h1', null, code(id)), problem.status === 404
      ? empty('There is no such session', 'It may have been deleted, or the id is not whole.', h('a', { class: 'button', href: link('sessions') }, 'All sessions'))
      : failure(problem, () => session(page)));
    return;
  }
  draw(page, detail, load);
}

function draw(page, first, load) {
  const { id } = page;
  let detail = first;
  const tail = tailState();
  const view = views(page, id);
  const more = h('button', { type: 'button', hidden: true }, 'Load earlier events');
  const trimmed = h('p', { class: 'soft', hidden: true });
  const another = h('p', { class: 'soft', hidden: true }, 'This is another log: the one before went when the session was deleted or a backup restored.');
  const none = h('div', { hidden: true }, empty('Nothing was said yet', 'It appears here the moment it is stored.'));
  const trouble = h('div');
  const acts = actButtons(id, () => detail, refresh);
  const top = head(id, tail, view.switcher, acts);
  const side = sideView(refresh, page.signal);
  const say = sayForm(id, () => view.talk.toEnd());

  function show() {
    put(top.state, sessionBadge(detail.state), ' ', detail.queue > 0 && badge(`${count(detail.queue)} waiting`, 'warn'));
    acts.draw(detail);
    side.draw(detail);
    if (detail.state !== 'open') say.end('The session is closed: this was not said.');
  }
  let gone = false;
  /** Somebody deleted it: what is on the page is all that is left, and there is nothing to ask for. */
  function vanish() {
    gone = true;
    put(top.state, badge('deleted', 'bad'));
    acts.element.hidden = true;
    side.element.hidden = true;
    say.end('The session was deleted: this was not said.');
    put(trouble, empty('This session was deleted', 'What stands here is only left on this page.', h('a', { class: 'button', href: link('sessions') }, 'All sessions')));
  }
  async function refresh() {
    if (gone) return;
    try {
      detail = await load();
      if (gone) return;
      show();
      if (detail.epoch !== log.epoch) log.followOn(); // where it is told
    } catch (problem) {
      if (problem.status === 404) vanish();
    }
  }
  let soon;
  const refreshSoon = () => {
    clearTimeout(soon);
    soon = setTimeout(refresh, 200);
  };
  page.signal.addEventListener('abort', () => clearTimeout(soon));

  const edges = () => {
    more.hidden = !log.hasEarlier;
    none.hidden = log.events.length > 0;
    trimmed.hidden = more.hidden === false || log.oldest <= 1;
    trimmed.textContent = `What came before event ${count(log.oldest)} was trimmed, as the retention settings say.`;
  };
  const log = new Log(id, detail.epoch, page.signal, {
    reset() {
      view.reset(log);
      edges();
    },
    event(event) {
      none.hidden = true;
      view.add(event);
      if (TELLING.has(event.type)) refreshSoon();
    },
    another() {
      another.hidden = false;
      put(trouble);
      refreshSoon();
    },
    state: tail.set,
    failure: (problem) => put(trouble, failure(problem, start)),
  });
  more.addEventListener('click', () => act(more, async () => {
    const before = document.scrollingElement.scrollHeight;
    await log.earlier();
    scrollBy(0, document.scrollingElement.scrollHeight - before);
  }));
  async function start() {
    put(trouble, loading('Loading its events …'));
    try {
      await log.load(detail.state === 'closed');
      put(trouble);
      view.talk.toEnd();
    } catch (problem) {
      if (problem.name !== 'AbortError') put(trouble, failure(problem, start));
    }
  }

  put(page.root,
    top.element,
    h('div', { class: 'session' },
      h('div', { class: 'session-main' }, another, more, trimmed, view.body, none, trouble, say.element),
      side.element));
  show();
  page.keepScroll = true;
  page.every(DETAIL_MS, refresh);
  return start();
}
