/**
 * Following a session live: an event stream (WHATWG HTML 9.2) read by fetch, because an EventSource
 * cannot send the Authorization header. Comes back by itself, after the last event seen.
 */
import { request, seg } from './api.js';

const SILENCE_MS = 90000; // the gateway says something at least every heartbeat
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15000;

/** Calls `onMessage({ id, event, data })` for each whole message of the text fed to it. */
export function parser(onMessage) {
  let rest = '';
  let data = [];
  let event = '';
  let id = '';
  const line = (text) => {
    if (text === '') {
      if (data.length) onMessage({ id, event: event || 'message', data: data.join('\n') });
      data = [];
      event = '';
      return;
    }
    const colon = text.indexOf(':');
    if (colon === 0) return;
    const name = colon < 0 ? text : text.slice(0, colon);
    const value = colon < 0 ? '' : text.slice(colon + 1).replace(/^ /, '');
    if (name === 'data') data.push(value);
    else if (name === 'event') event = value;
    else if (name === 'id') id = value;
  };
  return (text) => {
    // A line's end may be split between chunks: what follows the last \n waits.
    const end = text.lastIndexOf('\n');
    if (end < 0) {
      rest += text;
      return;
    }
    const lines = (rest + text.slice(0, end + 1)).split(/\r?\n/);
    lines.pop();
    rest = text.slice(end + 1);
    lines.forEach(line);
  };
}

async function read(response, feed, stop) {
  const decoder = new TextDecoder();
  const reader = response.body.getReader();
  let timer;
  try {
    for (;;) {
      clearTimeout(timer);
      timer = setTimeout(stop, SILENCE_MS);
      const { done, value } = await reader.read();
      if (done) return;
      feed(decoder.decode(value, { stream: true }));
    }
  } finally {
    clearTimeout(timer);
  }
}

const pause = (ms, signal) =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => (clearTimeout(timer), resolve()), { once: true });
  });

/**
 * Follows session `id` after cursor `since` of the log `epoch` until `on.signal` is aborted or the session ends.
 * `on`: `{ signal, event(event), resync(told), state(name, detail) }`; states: `connecting`, `live`,
 * `waiting` (detail: ms), `ended`, `failed` (detail: the problem).
 */
export async function follow(id, since, epoch, on) {
  let last = since;
  let wait = FIRST_WAIT_MS;
  let ended = false;
  const take = ({ event, data }) => {
    if (on.signal.aborted) return; // what came behind a resync
    wait = FIRST_WAIT_MS;
    let parsed;
    try {
      parsed = JSON.parse(data);
    } catch {
      return;
    }
    if (event === 'resync') {
      on.resync(parsed);
      return;
    }
    if (event === 'reconnect' || typeof parsed?.type !== 'string') return;
    if (Number.isSafeInteger(parsed.cursor)) {
      if (parsed.cursor <= last) return;
      last = parsed.cursor;
    }
    on.event(parsed);
    if (parsed.type === 'session_end') ended = true;
  };
  while (!on.signal.aborted) {
    const attempt = new AbortController();
    const stop = () => attempt.abort();
    on.signal.addEventListener('abort', stop, { once: true });
    on.state('connecting');
    try {
      const response = await request('GET', `sessions/${seg(id)}/events`, {
        query: { since: last, epoch }, headers: { Accept: 'text/event-stream' }, signal: attempt.signal,
      });
      if (response.status === 204) {
        ended = true; // closed, and nothing more to come
      } else {
        on.state('live');
        await read(response, parser(take), stop);
      }
    } catch (problem) {
      if (problem.status >= 400 && problem.status < 500 && problem.status !== 429) {
        if (!on.signal.aborted) on.state('failed', problem);
        return;
      }
    }
    on.signal.removeEventListener('abort', stop);
    if (on.signal.aborted) return;
    if (ended) {
      on.state('ended');
      return;
    }
    const delay = wait * (0.5 + Math.random() / 2);
    wait = Math.min(LONGEST_WAIT_MS, wait * 2);
    on.state('waiting', delay);
    await pause(delay, on.signal);
  }
}
