/**
 * Serving an agent: turns in, streamed answers out.
 *
 * A Run is one turn being worked on. It outlives connections: when the connection breaks
 * (or the gateway restarts) the handler goes on, what it emits waits, and when the gateway
 * hands the same turn out again to this process, the Run is picked up where it was: what
 * was not confirmed is sent again with the same event_id, so it is in the log once. A turn
 * that went to another worker meanwhile is given up after `reattachMs`.
 */
import { Backoff } from './backoff.js';
import { EbbgateError, RETRYABLE, checkFrame, checkId, errorFromFrame, plainText, tell } from './errors.js';
import { Link } from './link.js';
import { newId } from './session.js';

/** Finished turns whose final was not confirmed are kept, to be told again if asked. */
const KEPT_FINISHED = 256;

/** Yield this to say how the turn ends: `yield new Final('text', { status: 'rejected' })`. */
export class Final {
  constructor(content, outcome) {
    this.content = content ?? '';
    this.outcome = outcome;
  }
}

/** Throw this to fail an attempt: `retry: false` gives the turn up. Any other error is a plain failure. */
export class TurnFailed extends Error {
  constructor(message, { retry, retryAfterSeconds } = {}) {
    super(message);
    this.name = 'TurnFailed';
    this.retry = retry;
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

/** A third of the lease the gateway tells: two extends may be late. */
function leaseShare(hello) {
  const leaseMs = Number(hello.policy?.turn_lease_ms);
  return leaseMs > 0 ? leaseMs / 3 : 20000;
}

class Run {
  constructor(server, frame) {
    this.server = server;
    this.sessionId = frame.session_id;
    this.turn = frame.turn;
    this.attempt = frame.attempt;
    this.frame = frame;
    // How its frames name the turn. A session begun anew under an old id has the same numbers, but not the epoch.
    this.name = { session_id: frame.session_id, turn: frame.turn, ...(frame.epoch && { epoch: frame.epoch }) };
    this.runId = newId();
    this.count = 0;
    this.text = '';
    this.unconfirmed = new Map(); // event_id -> frame, in order
    this.ending = null; // the final or fail frame
    this.attached = true;
    this.controller = new AbortController();
    this.room = [];
    this.stop = () => {}; // ends the step that is waited for
    this.context = this.makeContext();
  }

  makeContext() {
    const run = this;
    const message = this.frame.message ?? {};
    return {
      sessionId: this.sessionId,
      turn: this.turn,
      get attempt() {
        return run.attempt;
      },
      message,
      content: message.data?.content,
      metadata: message.data?.metadata,
      historyCursor: this.frame.history_cursor,
      traceparent: this.frame.traceparent,
      signal: this.controller.signal,
      emit: (event, data, options) => this.emit(event, data, options),
      history: (options) => this.server.history(this.sessionId, options),
    };
  }

  get over() {
    return this.ending !== null || this.controller.signal.aborted;
  }

  /** Appends a stream event; resolves when there is room for the next. */
  async emit(event, data, { id, ephemeral } = {}) {
    if (this.over) throw this.controller.signal.reason ?? new EbbgateError('turn_closed', 'this turn is over');
    const frame = { type: 'emit', ...this.name, event, data };
    if (ephemeral) {
      frame.ephemeral = true;
      checkFrame(frame, this.server.maxPayload);
      this.transmit(frame);
      return;
    }
    frame.event_id = id ?? `${this.runId}.${this.count + 1}`;
    checkId('id', frame.event_id);
    const copy = checkFrame(frame, this.server.maxPayload);
    this.count += 1;
    this.unconfirmed.set(frame.event_id, copy);
    this.transmit(copy);
    while (this.unconfirmed.size >= this.server.emitWindow && !this.over) {
      await new Promise((resolve) => this.room.push(resolve));
    }
  }

  transmit(frame) {
    if (!this.attached || this.holding) return;
    this.active = true;
    this.server.link.send(frame);
  }

  /** The gateway handed this turn to us once more. */
  reattach(frame) {
    this.attempt = frame.attempt;
    this.attached = true;
    this.repeat();
  }

  repeat() {
    for (const frame of this.unconfirmed.values()) this.transmit(frame);
    if (this.ending) this.transmit(this.ending);
  }

  confirmed(eventId) {
    if (this.ending?.event_id === eventId) {
      this.server.forget(this);
      return;
    }
    this.unconfirmed.delete(eventId);
    this.server.backoff.reset();
    this.makeRoom();
  }

  makeRoom() {
    for (const resolve of this.room.splice(0)) resolve();
  }

  /** "Not now" for one frame: everything unconfirmed is sent again later, in order. */
  hold(seconds) {
    if (this.holding) return;
    this.holding = true;
    const floor = Number(seconds) > 0 ? Number(seconds) : 0;
    this.server.link.sleep(this.server.backoff.next(floor), this.server.stopping.signal).then(() => {
      this.holding = false;
      this.repeat();
    });
  }

  end(frame) {
    if (this.ending) return;
    this.ending = { ...this.name, ...frame };
    if (frame.type === 'final') this.ending.event_id = `${this.runId}.final`;
    this.transmit(this.ending);
    this.makeRoom();
    this.server.finished(this);
  }

  /** What the handler's step comes to, or the cancellation before. A long turn keeps nothing of its earlier steps. */
  step(work) {
    return new Promise((resolve, reject) => {
      Promise.resolve(work).then(resolve, reject);
      this.stop = reject;
      if (this.controller.signal.aborted) reject(this.controller.signal.reason);
    });
  }

  /** Stops the handler. `reason.code` `aborted` is answered, others mean that the turn is no longer ours. */
  cancel(error) {
    if (this.controller.signal.aborted) return;
    this.controller.abort(error);
    this.stop(error);
    this.makeRoom();
  }
}

async function drive(run, handler) {
  const made = handler(run.context);
  if (typeof made?.[Symbol.asyncIterator] !== 'function' && typeof made?.next !== 'function') {
    const value = await run.step(made);
    return value instanceof Final ? value : new Final(value ?? '');
  }
  const steps = made[Symbol.asyncIterator]?.() ?? made;
  try {
    for (;;) {
      const { done, value } = await run.step(steps.next());
      if (done) return value === undefined ? new Final(run.text) : value instanceof Final ? value : new Final(value);
      if (value instanceof Final) return value;
      await run.step(emitValue(run, value));
    }
  } finally {
    Promise.resolve(steps.return?.()).catch(() => {});
  }
}

/** A yielded value becomes an event: text is a token, an object names its event. */
async function emitValue(run, value) {
  const named = typeof value === 'object' && value !== null && typeof value.event === 'string';
  if (run.count === 0 && run.attempt > 1 && !run.retold && !(named && value.id !== undefined)) {
    run.retold = true;
    await run.emit('retry_stream', { attempt: run.attempt });
  }
  if (typeof value === 'string') {
    if (value === '') return;
    run.text += value;
    await run.emit('token_stream', { content: value });
  } else if (named) {
    if (value.event === 'token_stream' && typeof value.data?.content === 'string') run.text += value.data.content;
    await run.emit(value.event, value.data ?? {}, value);
  } else {
    throw new TypeError('an agent yields text, { event, data } or new Final(…)');
  }
}

export class AgentServer {
  /** Use `serveAgent()`. */
  constructor(id, handler, options) {
    if (typeof id !== 'string' || id === '') throw new TypeError('serveAgent() needs the id of the agent to serve');
    if (typeof handler !== 'function') throw new TypeError('serveAgent() needs an async generator function');
    this.id = id;
    this.handler = handler;
    this.options = options;
    this.emitWindow = options.emitWindow ?? 32;
    this.reattachMs = options.reattachMs ?? 30000;
    this.runs = new Map(); // key -> Run
    this.kept = new Map(); // key -> finished Run, oldest first
    this.requests = [];
    this.publishing = new Map();
    this.stopping = new AbortController();
    this.draining = false;
    this.backoff = new Backoff(options.retry);
    this.link = new Link({ clientName: 'ebbgate-js-agent', ...options }, this);
    this.ready = new Promise((resolve, reject) => {
      this.opened = { resolve, reject };
    });
    this.closed = new Promise((resolve, reject) => {
      this.ended = { resolve, reject };
    });
    this.ready.catch(() => {});
    this.closed.catch(() => {});
    options.signal?.addEventListener('abort', () => this.stop(), { once: true });
    this.link.start();
  }

  /** An event outside a turn. Resolves when it is on disk: `{ eventId, cursor }`. */
  publish(sessionId, event, data, { id } = {}) {
    if (this.link.ended) return Promise.reject(new EbbgateError('closed', 'this agent is stopped'));
    const eventId = id ?? newId();
    const entry = { frame: { type: 'publish', session_id: sessionId, event, data, event_id: eventId } };
    try {
      checkId('id', eventId);
      entry.frame = checkFrame(entry.frame, this.maxPayload);
    } catch (error) {
      return Promise.reject(error);
    }
    const promise = new Promise((resolve, reject) => Object.assign(entry, { resolve, reject }));
    this.publishing.set(eventId, entry);
    this.link.send(entry.frame);
    return promise;
  }

  history(sessionId, options = {}) {
    const frame = { type: 'history', session_id: sessionId };
    for (const name of ['since', 'before', 'limit']) if (options[name] !== undefined) frame[name] = options[name];
    if (this.link.ended) return Promise.reject(new EbbgateError('closed', 'this agent is stopped'));
    return new Promise((resolve, reject) => {
      checkFrame(frame);
      this.requests.push({ frame, resolve, reject });
      this.link.send(frame);
    });
  }

  /** Takes no new turns, lets running ones end (at most `timeoutMs`), then closes. */
  async stop({ timeoutMs = 30000 } = {}) {
    this.draining = true;
    const running = [...this.runs.values()].filter((run) => run.attached);
    let timer;
    const late = new Promise((resolve) => {
      timer = setTimeout(resolve, timeoutMs);
    });
    await Promise.race([Promise.all(running.map((run) => run.done)), late]);
    clearTimeout(timer);
    this.link.end(null);
    await this.closed.catch(() => {});
  }

  // What the link calls.

  helloFields() {
    return { agent_id: this.id, role: 'agent', concurrency: this.options.concurrency ?? 1, capabilities: ['ack'] };
  }

  onReady(hello) {
    this.workerId = hello.worker_id;
    clearInterval(this.extender);
    this.extender = setInterval(() => this.extend(), this.options.extendMs ?? leaseShare(hello));
    this.extender.unref?.();
    this.maxPayload = hello.policy?.max_payload;
    for (const [id, entry] of this.publishing) {
      try {
        checkFrame(entry.frame, this.maxPayload);
        this.link.send(entry.frame);
      } catch (error) {
        this.publishing.delete(id); // from before the gateway told its limit
        entry.reject(error);
      }
    }
    for (const request of this.requests) this.link.send(request.frame);
    const detached = [...this.runs.values()].filter((run) => !run.attached);
    if (detached.length > 0) {
      clearTimeout(this.lostTimer);
      this.lostTimer = setTimeout(() => this.giveUpLost(), this.reattachMs);
    }
    this.opened.resolve(this);
  }

  giveUpLost() {
    for (const run of this.runs.values()) {
      if (!run.attached) this.lose(run, new EbbgateError('turn_closed', 'the turn went to another worker'));
    }
  }

  onFrame(frame) {
    switch (frame.type) {
      case 'turn':
        this.takeTurn(frame);
        return;
      case 'abort':
        this.find(frame)?.cancel(new EbbgateError('aborted', frame.reason || 'aborted'));
        return;
      case 'emitted':
        this.emitted(frame);
        return;
      case 'history':
        this.requests.shift()?.resolve({ events: frame.events, oldestCursor: frame.oldest_cursor, cursor: frame.cursor });
        return;
      case 'error':
        this.refused(frame);
        return;
    }
  }

  onDown() {
    clearTimeout(this.lostTimer);
    for (const run of [...this.runs.values(), ...this.kept.values()]) run.attached = false;
  }

  onEnd(error) {
    clearInterval(this.extender);
    clearTimeout(this.lostTimer);
    this.stopping.abort();
    const reason = error ?? new EbbgateError('closed', 'this agent is stopped');
    for (const run of this.runs.values()) run.cancel(reason);
    for (const waiter of [...this.requests.splice(0), ...this.publishing.values()]) waiter.reject(reason);
    this.publishing.clear();
    this.opened.reject(reason);
    if (error) this.ended.reject(error);
    else this.ended.resolve();
  }

  onError(error) {
    tell(this.options, 'onError', error);
  }

  onStatus(status) {
    tell(this.options, 'onStatus', status);
  }

  // Turns.

  key(frame) {
    return `${frame.session_id}\n${frame.turn}`;
  }

  find(frame) {
    return this.runs.get(this.key(frame));
  }

  takeTurn(frame) {
    const key = this.key(frame);
    const known = this.runs.get(key) ?? this.kept.get(key);
    if (known && known.frame.message?.event_id === frame.message?.event_id) {
      known.reattach(frame);
      return;
    }
    // Another message under an old number: the log was restored from a backup, or begun anew under the same id.
    if (known) this.lose(known, new EbbgateError('turn_closed', 'the message of this turn is gone'));
    if (this.draining) return; // not begun, so the gateway gives it to another when we close
    const run = new Run(this, frame);
    this.runs.set(key, run);
    run.done = this.work(run);
  }

  async work(run) {
    try {
      const { content, outcome } = await drive(run, this.handler);
      const frame = { type: 'final', content, outcome: outcome ?? { status: 'ok' } };
      const named = { ...run.name, event_id: `${run.runId}.final` };
      run.end(checkFrame({ ...frame, ...named }, this.maxPayload));
    } catch (error) {
      if (run.controller.signal.aborted) this.stopped(run, run.controller.signal.reason);
      else this.failed(run, error);
    }
  }

  /** The run was cancelled: an abort is answered, anything else has no one to be told. */
  stopped(run, reason) {
    if (reason?.code === 'aborted') {
      run.end({ type: 'final', content: run.text, outcome: { status: 'aborted', reason: reason.message } });
    }
  }

  failed(run, error) {
    this.onError(error);
    const frame = { type: 'fail', error: plainText(String(error?.message ?? error)) };
    if (error instanceof TurnFailed) {
      if (error.retry !== undefined) frame.retry = error.retry;
      if (error.retryAfterSeconds !== undefined) frame.retry_after_seconds = error.retryAfterSeconds;
    }
    run.end(frame);
  }

  finished(run) {
    const key = this.key(run.frame);
    this.runs.delete(key);
    if (run.ending.type === 'fail') return; // a lost fail is told by the turn coming again
    this.kept.set(key, run);
    if (this.kept.size > KEPT_FINISHED) this.kept.delete(this.kept.keys().next().value);
  }

  forget(run) {
    this.kept.delete(this.key(run.frame));
  }

  lose(run, error) {
    this.runs.delete(this.key(run.frame));
    this.kept.delete(this.key(run.frame));
    run.attached = false;
    run.cancel(error);
  }

  owner(frame) {
    const all = [...this.runs.values(), ...this.kept.values()];
    if (frame.turn !== undefined) {
      const named = all.find((run) => run.turn === frame.turn && run.sessionId === frame.session_id);
      if (named) return named;
    }
    const id = frame.ref ?? frame.event_id;
    return id === undefined ? undefined : all.find((run) => run.unconfirmed.has(id) || run.ending?.event_id === id);
  }

  emitted(frame) {
    const entry = this.publishing.get(frame.event_id);
    if (entry) {
      this.publishing.delete(frame.event_id);
      entry.resolve({ eventId: frame.event_id, cursor: frame.cursor });
      return;
    }
    this.owner(frame)?.confirmed(frame.event_id);
  }

  refused(frame) {
    const error = errorFromFrame(frame);
    const entry = this.publishing.get(frame.ref);
    if (entry) {
      if (RETRYABLE.has(frame.code)) {
        const wait = this.backoff.next(Number(frame.retry_after_seconds) || 0);
        this.link.sleep(wait, this.stopping.signal).then(() => this.link.send(entry.frame));
      } else {
        this.publishing.delete(frame.ref);
        entry.reject(error);
      }
      return;
    }
    const run = this.owner(frame);
    if (run && frame.code === 'turn_closed') {
      this.lose(run, error);
    } else if (run && RETRYABLE.has(frame.code)) {
      run.hold(frame.retry_after_seconds);
    } else if (run) {
      this.rejected(run, frame, error);
    } else {
      if (frame.ref === undefined && this.requests.length > 0) this.requests.shift().reject(error);
      this.onError(error);
    }
  }

  /** The gateway will never take this frame: the turn cannot go on as its handler meant it. */
  rejected(run, frame, error) {
    this.onError(error);
    run.unconfirmed.delete(frame.ref);
    if (run.ending) {
      this.kept.delete(this.key(run.frame));
      run.ending = null;
    }
    run.end({ type: 'fail', error: `${error.code}: ${error.message}`, retry: false });
    run.cancel(error);
  }

  extend() {
    for (const run of this.runs.values()) {
      if (run.attached && !run.active) this.link.send({ type: 'extend', ...run.name });
      run.active = false;
    }
  }
}

/**
 * Serves agent `id`: for each turn `handler(turn)` is called; what the async generator yields is streamed.
 *
 *   serveAgent('echo', async function* (turn) { yield turn.content; }, { url, token });
 */
export function serveAgent(id, handler, options) {
  return new AgentServer(id, handler, options);
}
