/** Talking to an agent as any client does, with the connection's ups and downs on view. */
import { claims, get } from '../api.js';
import { enter, mayChat, publicUrl } from '../chat-link.js';
import { conversationView } from '../conversation-view.js';
import { h, put } from '../dom.js';
import { keepDraft } from '../drafts.js';
import { clock, count, plural, span } from '../format.js';
import { link } from '../router.js';
import { code, label, visible } from '../text.js';
import { act, empty, failure, field, loading } from '../widgets.js';

const LINES = 60;

/** The story of the connection, newest first. */
function story() {
  const state = h('span', { class: 'tail', role: 'status' });
  const lines = h('ol', { class: 'story' });
  const element = h('details', { class: 'story-box' }, h('summary', null, state), lines);
  return {
    element,
    set(kind, text) {
      put(state, h('span', { class: `light ${kind}` }), text);
    },
    tell(text) {
      lines.prepend(h('li', null, clock(Date.now() / 1000), ' ', text));
      while (lines.childElementCount > LINES) lines.lastElementChild.remove();
    },
  };
}

/** Tells the story of the library's status calls. */
function narrator(log) {
  let replaying = null;
  let before = false;
  return {
    replayed: () => replaying && (replaying.events += 1),
    onStatus({ state, attempt, delayMs, error, hello }) {
      if (state === 'connecting') {
        log.set('warn', attempt ? `connecting, try ${count(attempt + 1)} …` : 'connecting …');
      } else if (state === 'waiting') {
        log.set('bad', `no connection, again in ${span(delayMs / 1000 + 0.5)}`);
        log.tell(`Lost: ${error?.message ?? 'no reason given'}. Again in ${(delayMs / 1000).toFixed(1)} s.`);
      } else if (state === 'replaying') {
        replaying = { after: hello.sequence, events: 0 };
        log.set('warn', `resuming after event ${count(hello.sequence)} of ${count(hello.cursor)} …`);
      } else if (state === 'open') {
        log.set('good', before ? 'connected again' : 'connected');
        log.tell(replaying ? `Resumed after event ${count(replaying.after)}: ${plural(replaying.events, 'event')} caught up with.`
          : `${before ? 'Connected again, nothing was missed' : 'Connected'}, at event ${count(hello.cursor)}.`);
        before = true;
        replaying = null;
      } else if (state === 'closed') {
        log.set(error ? 'bad' : '', error ? `ended: ${error.message}` : 'ended');
        log.tell(error ? `Ended: ${error.message}` : 'Ended.');
      }
    },
    onResync: ({ reason }) => log.tell(`The gateway no longer has all of it (${visible(reason)}): a snapshot took its place.`),
    onGap: ({ expected, next }) => log.tell(`Event ${count(expected)} is missing before ${count(next)}: asked for again.`),
    onError: (error) => log.tell(`The gateway says: ${error.message}`),
  };
}

/** What is said but not yet stored. */
function pendingList() {
  const element = h('ul', { class: 'pending', 'aria-label': 'Not yet stored' });
  return {
    element,
    add(text) {
      const row = h('li', null, h('span', { class: 'spinner' }), label(text), h('small', null, 'not stored yet: it is sent as soon as there is a connection'));
      element.append(row);
      return row;
    },
  };
}

function composer(session, pending, view) {
  const text = h('textarea', { rows: 2, placeholder: 'Say something', 'aria-label': 'Say something', required: true });
  const draft = keepDraft(text, `chat ${session.agent} ${session.id}`);
  const send = h('button', { class: 'main' }, 'Send');
  const stop = h('button', { type: 'button', onclick: () => act(stop, () => session.abort({ reason: 'stopped in the console' })) }, 'Stop');
  const submit = (event) => {
    event.preventDefault();
    const content = text.value;
    if (!content) return;
    draft.said();
    const row = pending.add(content);
    view.toEnd();
    session.send(content).then(() => row.remove(), (error) => {
      put(row, label(content), h('small', { class: 'bad' }, `not sent: ${error.message}`));
    });
  };
  const form = h('form', { class: 'composer', onsubmit: submit }, text, send, stop);
  text.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) form.requestSubmit(event.preventDefault());
  });
  return { element: form, focus: () => text.focus(), end: () => form.querySelectorAll('textarea, button').forEach((e) => (e.disabled = true)) };
}

async function readOn(page, session, view, teller) {
  for await (const event of session) {
    if (page.signal.aborted) return;
    if (event.type === 'snapshot') {
      view.show(event.state?.messages ?? []);
      continue;
    }
    teller.replayed();
    // One's own message is answered by its cursor, not by the event: it has no time of its own yet.
    view.add(event.own && event.timestamp === undefined ? { ...event, timestamp: Date.now() / 1000 } : event);
  }
}

async function talkTo(page, body, url, agent, id) {
  const log = story();
  const teller = narrator(log);
  const view = conversationView({ me: 'you', mine: `client:${claims()?.sub}` });
  const where = h('span');
  const room = h('div');
  put(body, h('div', { class: 'chat-head' }, h('div', { class: 'session-line' }, label(agent), where), log.element), view.element, room);
  page.keepScroll = true;
  let session;
  try {
    session = await enter({ url, agent, session: id, signal: page.signal, onStatus: teller.onStatus, onResync: teller.onResync, onGap: teller.onGap, onError: teller.onError });
  } catch (problem) {
    if (page.signal.aborted) return;
    put(room, failure({ title: 'The gateway refuses', detail: problem.message, nextStep: problem.nextStep }, () => talkTo(page, body, url, agent, id)));
    return;
  }
  if (page.signal.aborted) return;
  page.setQuery({ agent, session: session.id });
  put(where, h('a', { href: link(['sessions', session.id]) }, code(session.id)));
  const pending = pendingList();
  const say = composer(session, pending, view);
  put(room, pending.element, say.element);
  say.focus();
  readOn(page, session, view, teller)
    .then(() => say.end(), (problem) => page.signal.aborted || put(room, failure({ title: 'The conversation ended', detail: problem.message }, () => talkTo(page, body, url, agent, session.id))));
}

function startForm(page, body, known, url) {
  const names = h('datalist', { id: 'agents' }, known.map((a) => h('option', { value: a.id }, a.workers.length ? 'served' : 'no worker now')));
  const agent = h('input', { required: true, list: 'agents', autocomplete: 'off', maxlength: 128 });
  const id = h('input', { autocomplete: 'off', maxlength: 128, placeholder: 'a new one' });
  agent.value = page.query.get('agent') ?? (known.length === 1 ? known[0].id : '');
  id.value = page.query.get('session') ?? '';
  return h('form', {
    class: 'panel form',
    onsubmit: (event) => {
      event.preventDefault();
      page.setQuery({ agent: agent.value.trim(), session: id.value.trim() });
      talkTo(page, body, url, agent.value.trim(), id.value.trim());
    },
  }, names,
  field('Agent', agent, known.length ? null : 'No agent is known yet. Attach one: ebbgate agent --id echo --exec cat'),
  field('Session', id, 'Leave it empty to begin. Only sessions of your own name can be entered.'),
  h('div', { class: 'buttons' }, h('button', { class: 'main' }, 'Talk')),
  h('small', null, 'Over ', h('code', null, url), ', with a token that lasts ten minutes and is renewed while you talk.'));
}

export async function chat(page) {
  page.title('Chat');
  const body = h('div', { class: 'chat' }, loading('Looking for agents …'));
  const fresh = h('a', { class: 'button', href: link('chat'), onclick: () => page.query.size && setTimeout(() => chat(page)) }, 'Another conversation');
  put(page.root, h('div', { class: 'page-head' }, h('h1', null, 'Chat'), fresh), body);
  if (!mayChat()) {
    fresh.hidden = true;
    put(body, empty('This token cannot hand out what a chat needs', 'A token is never made wider than the one it is made with. Sign in with one that has read and write beside admin:',
      h('pre', { class: 'block', tabindex: 0 }, 'ebbgate token --sub you --scope "admin read write"')));
    return;
  }
  const [stats, { agents: known }] = await Promise.all([get('stats', undefined, page.signal), get('agents', { limit: 500 }, page.signal)]);
  const url = publicUrl(stats);
  const [agent, session] = [page.query.get('agent'), page.query.get('session')];
  if (agent && session) await talkTo(page, body, url, agent, session);
  else put(body, startForm(page, body, known, url));
}
