/**
 * The chat page's way to the gateway: the project's own client library, over the public WebSocket, with
 * short-lived tokens that it asks the admin API for.
 */
import { connect } from '/lib/index.js';
import { claims, may, post } from './api.js';

const TOKEN_S = 600;

/** Whether the token signed in with may hand out what a client needs. */
export const mayChat = () => may('admin') && may('read') && may('write');

/** The public WebSocket's address, as this browser reaches it. */
export function publicUrl(stats) {
  const at = stats.public.lastIndexOf(':');
  const [host, port] = [stats.public.slice(0, at), stats.public.slice(at + 1)];
  const everywhere = host === '0.0.0.0' || host === '[::]';
  const secure = location.protocol === 'https:';
  return `${secure ? 'wss' : 'ws'}://${secure || everywhere ? location.hostname : host}:${port}/ws`;
}

/** A token for the conversation, or one as long as mine where that ends before; the gateway's clock alone decides. */
async function mint(agent) {
  const body = { sub: claims()?.sub, scope: 'read write', agents: [agent] };
  try {
    return (await post('tokens', { ...body, ttl: TOKEN_S })).token;
  } catch (problem) {
    if (problem.field !== 'ttl') throw problem;
    return (await post('tokens', body)).token;
  }
}

/**
 * Keeps what was said but not yet accepted, and which session it was, for a reload of the page. It does not keep the
 * cursor: a new page shows the conversation from its beginning. A new session is kept under the id that it gets.
 */
const store = (agent, session) => {
  const name = (id) => `ebbgate.chat:${agent}:${id}`;
  return {
    load() {
      const text = session ? sessionStorage.getItem(name(session)) : null;
      return text === null ? null : JSON.parse(text);
    },
    save(key, { session_id, outbox }) {
      sessionStorage.setItem(name(session_id), JSON.stringify({ session_id, outbox }));
    },
    remove() {
      if (session) sessionStorage.removeItem(name(session));
    },
  };
};

/**
 * Enters a session of `agent` (a new one without `session`) and stays in it until `signal` is aborted.
 * `on`: the library's onStatus, onResync, onGap, onError.
 */
export function enter({ url, agent, session, signal, ...on }) {
  return connect({
    url,
    agent,
    session: session || undefined,
    token: () => mint(agent),
    clientName: 'ebbgate-console',
    store: store(agent, session),
    retry: { maxMs: 5000 },
    signal,
    ...on,
  });
}
