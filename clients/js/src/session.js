/**
 * A client's part in one session.
 *
 * Two positions, both cursors of the session's log, are kept apart:
 *   seen       everything up to here has been received and is queued or delivered. A
 *              reconnect asks for what follows `seen`.
 *   delivered  everything up to here was handed to the application and done with. Only this one
 *              is stored; a new process asks for what follows `delivered`.
 * Neither ever moves to the head of the log that hello_ok names: what lies between would be lost.
 *
 * An event counts as delivered when the application asks for the next one, or closes the session.
 */
import { EbbgateError, checkFrame, checkId, errorFromFrame, tell } from './errors.js';
import { Link } from './link.js';
import { Outbox } from './outbox.js';
import { MemoryStore } from './stores.js';
import { Answer } from './text.js';

/** Events kept for a slow application; beyond that the gateway's log keeps them. */
const MAX_QUEUED = 5000;
/** Frames that answer a request rather than tell of something. */
const CONTROL = new Set(['joined', 'hello_ok', 'history', 'left', 'aborted', 'no_active_turn', 'auth_ok']);

export function newId() {
  if (typeof globalThis.crypto?.randomUUID === 'function') return globalThis.crypto.randomUUID();
  // crypto.randomUUID is missing on plain-http pages; getRandomValues is not.
  const bytes = globalThis.crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

export class Session {
  /** Use `connect()`. */
  constructor(options) {
    if (!options || typeof options.agent !== 'string' || options.agent === '') {
      throw new TypeError('connect() needs options.agent, the id of the agent to talk to');
    }
    this.options = options;
    this.agent = options.agent;
    this.store = options.store ?? new MemoryStore();
    this.key = options.key ?? (options.session ? `${options.agent}:${options.session}` : options.agent);
    this.capabilities = options.capabilities ?? ['streaming', 'ack'];
    this.whole = this.capabilities.includes('streaming');
    this.maxQueued = options.maxQueued ?? MAX_QUEUED;
    this.id = options.session ?? null;
    this.epoch = null;
    this.seen = null;
    this.delivered = null; // { epoch, cursor }
    this.handed = null; // position of the event the application holds now
    this.queue = [];
    this.waiting = [];
    this.requests = [];
    this.state = 'connecting';
    this.link = new Link(options, this);
    this.outbox = new Outbox(
      {
        transmit: (frame) => this.link.send(frame),
        save: () => this.save(),
        sleep: this.link.sleep,
      },
      { window: options.sendWindow, retry: options.retry },
    );
    this.saving = Promise.resolve();
    this.opened = new Promise((resolve, reject) => {
      this.open = { resolve, reject };
    });
    this.opened.catch(() => {});
  }

  async begin() {
    const kept = await this.store.load(this.key);
    if (kept && (!this.id || this.id === kept.session_id)) {
      this.id = kept.session_id ?? this.id;
      if (Number.isSafeInteger(kept.cursor)) {
        this.epoch = kept.epoch ?? null;
        this.seen = kept.cursor;
        this.delivered = { epoch: this.epoch, cursor: kept.cursor };
      }
      this.outbox.restore(kept.outbox);
    }
    const { signal } = this.options;
    if (signal?.aborted) throw signal.reason;
    const leave = () => this.close();
    signal?.addEventListener('abort', leave);
    this.unlisten = () => signal?.removeEventListener('abort', leave); // a signal may outlive many sessions
    this.link.start();
    await this.opened;
    return this;
  }

  // What the application calls.

  /** Sends a message. Resolves when it is on the gateway's disk: `{ messageId, cursor, turn, duplicate }`. */
  send(content, options = {}) {
    if (this.link.ended) return Promise.reject(this.closedError());
    if (content === null || content === undefined || content === '') {
      return Promise.reject(new TypeError('a message needs content: any JSON but null and the empty string'));
    }
    if (content === '/stop' && !this.capabilities.includes('raw')) {
      return this.abort().then((result) => ({ messageId: null, cursor: null, duplicate: false, ...result }));
    }
    const messageId = options.messageId ?? newId();
    let given;
    try {
      checkId('messageId', messageId);
      given = checkFrame({ content, metadata: options.metadata, message_id: messageId });
    } catch (error) {
      return Promise.reject(error);
    }
    const entry = this.outbox.add(messageId, given.content, given.metadata);
    if (!entry.saved) {
      this.save().then(() => {
        entry.saved = true;
        this.outbox.pump();
      });
    }
    return entry.promise;
  }

  /** Sends a message and gives its answer: an async iterable of text pieces, with `.final`. */
  ask(content, options) {
    return new Answer(this, this.send(content, options));
  }

  /** Messages that are not known to be stored yet. */
  get pending() {
    return this.outbox.snapshot();
  }

  /** Asks the agent to stop. `{ aborted, turn? }`. Give `turn` to have it repeated after a loss. */
  abort(options = {}) {
    const frame = { type: 'abort' };
    if (options.turn !== undefined) frame.turn = options.turn;
    if (options.reason !== undefined) frame.reason = options.reason;
    return this.request(frame, ['aborted', 'no_active_turn'], options.turn !== undefined, (answer) =>
      answer.type === 'aborted' ? { aborted: true, turn: answer.turn } : { aborted: false },
    );
  }

  /** A page of the log: `{ events, oldestCursor, cursor }`. */
  history(options = {}) {
    const frame = { type: 'history' };
    for (const name of ['since', 'before', 'limit']) if (options[name] !== undefined) frame[name] = options[name];
    return this.request(frame, ['history'], true, (answer) => ({
      events: answer.events,
      oldestCursor: answer.oldest_cursor,
      cursor: answer.cursor,
    }));
  }

  /** The cursor up to which events were handed out. */
  get place() {
    return (this.handed ?? this.delivered)?.cursor ?? 0;
  }

  /** Snapshots that wait to be handed out. */
  get snapshots() {
    return this.queue.map((item) => item.event).filter((event) => event?.type === 'snapshot');
  }

  /** Tells the gateway, for all devices of this user, how far was read. Default: all that was delivered. */
  ack(cursor = this.place) {
    const { epoch } = this.handed ?? this.delivered ?? {};
    if (!(cursor > 0) || (epoch && epoch !== this.hello?.epoch)) return; // of a log that is gone, where they differ
    this.acked = Math.max(this.acked ?? 0, cursor);
    this.link.send({ type: 'ack', cursor: this.acked });
  }

  /** Tells others in the session how we are. Not stored; dropped while there is no connection. */
  presence(status, data) {
    const frame = data === undefined ? { type: 'presence', status } : { type: 'presence', status, data };
    checkFrame(frame);
    this.link.send(frame);
  }

  /** Tells others that we type. Not stored; dropped while there is no connection. */
  typing() {
    this.link.send({ type: 'typing' });
  }

  /** Stores that everything handed out so far is done with. */
  commit() {
    if (this.handed) {
      this.delivered = this.handed;
      this.handed = null;
      this.save();
    }
    return this.saving;
  }

  /** Leaves the session (it stays on the gateway) and closes. */
  async leave() {
    if (this.link.ready) await this.request({ type: 'leave' }, ['left'], false, () => true).catch(() => {});
    await this.close();
  }

  /**
   * Closes. What was handed out counts as delivered, unless `commit: false`, then the last event comes
   * again to whoever resumes from the store. Unaccepted messages stay in the store.
   */
  async close({ commit = true } = {}) {
    if (commit) this.commit();
    this.link.end(null);
    await this.saving;
  }

  [Symbol.asyncIterator]() {
    return { next: () => this.next(), return: async () => ({ done: true, value: undefined }) };
  }

  /** The next event, as an iterator's result. */
  next() {
    this.commit();
    return new Promise((resolve, reject) => {
      this.waiting.push({ resolve, reject });
      this.serve();
    });
  }

  // What the link calls.

  helloFields() {
    const hello = { agent_id: this.agent, capabilities: this.capabilities };
    if (this.id) {
      hello.session_id = this.id;
      if (this.options.create) hello.create = true;
    }
    if (this.seen !== null) {
      if (this.id) hello.since = this.seen;
      if (this.epoch !== null) hello.epoch = this.epoch;
    } else if (this.id) {
      const from = this.options.from ?? 'start';
      if (from === 'start') hello.since = 0;
      else if (from !== 'now') hello.since = from;
    }
    this.asked = hello.since;
    return hello;
  }

  onReady(hello) {
    this.id = hello.session_id ?? this.id;
    this.hello = hello;
    if (hello.resync_required) {
      this.resyncing = hello.epoch ?? null;
      this.caughtUp = false;
      if (hello.resync_reason !== 'trimmed') this.forgetLog();
      tell(this.options, 'onResync', {
        reason: hello.resync_reason,
        from: this.seen,
        oldestCursor: hello.oldest_cursor,
        cursor: hello.cursor,
      });
    } else {
      this.resyncing = undefined;
      this.epoch = hello.epoch ?? null;
      if (typeof this.asked !== 'number' || this.seen === null) {
        this.seen = hello.sequence ?? (hello.resumed ? hello.cursor : 0);
      }
      this.caughtUp = this.asked === undefined || !hello.resumed || !(hello.cursor > this.seen);
      if (this.delivered === null) this.delivered = { epoch: this.epoch, cursor: this.seen };
    }
    this.save();
    this.onStatus({ state: this.caughtUp ? 'open' : 'replaying', hello });
    for (const request of this.requests) this.link.send(request.frame);
    if (this.acked) this.link.send({ type: 'ack', cursor: this.acked });
    if (this.caughtUp) this.outbox.up(hello.policy?.max_payload);
    this.open.resolve(this);
  }

  /** The log is another one: its cursors and turns are not those that we spoke of. */
  forgetLog() {
    this.acked = undefined;
    this.dropRequests((request) => request.frame.turn !== undefined);
  }

  onFrame(frame) {
    switch (frame.type) {
      case 'replay':
        if (frame.event?.data && typeof frame.event.data === 'object') this.take(frame.event.data);
        return;
      case 'replay_end':
        if (this.reach(frame.cursor)) this.catchUp();
        return;
      case 'snapshot':
        this.restart(frame);
        return;
      case 'pong':
        if (this.caughtUp) this.reach(frame.cursor);
        return;
      case 'error':
        this.refused(frame);
        return;
      case 'response':
        if (frame.status === 'accepted') {
          this.accepted(frame);
          return;
        }
        break;
    }
    const index = this.requests.findIndex((request) => request.answers.includes(frame.type));
    if (index >= 0) {
      const [request] = this.requests.splice(index, 1);
      request.resolve(request.convert(frame));
      return;
    }
    if (!CONTROL.has(frame.type)) this.take(frame);
  }

  onDown(out) {
    const flying = [...this.outbox.entries].filter(([, entry]) => entry.inFlight);
    this.outbox.down();
    if (out.code === 1009) {
      for (const [id] of flying) this.outbox.refuse(id, new EbbgateError('payload_too_large', 'the gateway closed on this message: too long', { ref: id, closeCode: 1009 }));
    }
    this.caughtUp = false;
    this.overflow = false;
    this.dropRequests((request) => !request.repeat);
    if (this.sawEnd) this.link.end(null);
  }

  onEnd(error) {
    const reason = error ?? this.closedError();
    this.failure = error;
    this.unlisten?.();
    this.outbox.end(reason);
    for (const request of this.requests.splice(0)) request.reject(reason);
    this.open.reject(reason);
    this.serve();
  }

  onError(error) {
    tell(this.options, 'onError', error);
  }

  onStatus(status) {
    this.state = status.state;
    tell(this.options, 'onStatus', status);
  }

  // The log.

  /** One event of the log, live or replayed, or one that is not stored (without a cursor). */
  take(event) {
    if (event.type === 'session_end') this.sawEnd = true;
    const messageId = event.type === 'message' ? event.data?.message_id : undefined;
    const own = messageId !== undefined && this.outbox.mine.has(messageId);
    const { cursor } = event;
    if (!Number.isSafeInteger(cursor)) {
      if (!this.overflow && this.queue.length < this.maxQueued) this.enqueue({ event });
      return;
    }
    if (own) this.outbox.settle(messageId, { cursor, turn: event.turn ?? cursor, duplicate: true });
    if (this.resyncing !== undefined || cursor <= this.seen) return;
    if (!this.inOrder(cursor)) return;
    if (this.overflow || this.queue.length >= this.maxQueued) {
      this.overflow = true; // the gateway's log keeps it: it is asked for again when there is room
      return;
    }
    this.seen = cursor;
    this.enqueue({ event: own ? { ...event, own: true } : event, cursor });
  }

  /** Whether nothing is missing before `next`. If something is, it is fetched by a new connection, once. */
  inOrder(next) {
    if (!this.whole || this.overflow || next === this.seen + 1) return true;
    const again = this.healed === this.seen;
    tell(this.options, 'onGap', { expected: this.seen + 1, next, action: again ? 'accepted' : 'replay' });
    if (again) return true;
    this.healed = this.seen;
    this.link.bounce('gap');
    return false;
  }

  /** The gateway says that this connection is complete up to `cursor`. */
  reach(cursor) {
    if (!Number.isSafeInteger(cursor) || this.resyncing !== undefined || this.overflow) return true;
    if (cursor <= this.seen) return true;
    if (!this.inOrder(cursor + 1)) return false;
    this.seen = cursor;
    this.enqueue({ cursor });
    return true;
  }

  catchUp() {
    if (this.caughtUp) return;
    this.caughtUp = true;
    this.onStatus({ state: 'open', hello: this.hello });
    this.outbox.up(this.hello.policy?.max_payload);
  }

  /** A snapshot takes the place of what the log no longer has. */
  restart(frame) {
    const state = frame.state ?? {};
    if (this.resyncing !== undefined) this.epoch = this.resyncing;
    this.resyncing = undefined;
    this.healed = undefined;
    this.seen = Number.isSafeInteger(state.event_cursor) ? state.event_cursor : this.hello.cursor;
    for (const event of state.messages ?? []) {
      const id = event?.type === 'message' ? event.data?.message_id : undefined;
      if (id !== undefined) this.outbox.settle(id, { cursor: event.cursor, turn: event.turn ?? event.cursor, duplicate: true });
    }
    this.enqueue({ event: { type: 'snapshot', session_id: this.id, state }, cursor: this.seen });
    this.catchUp();
  }

  accepted(frame) {
    const { cursor, turn } = frame;
    const duplicate = frame.duplicate === true;
    const sent = this.outbox.settle(frame.message_id, { cursor, turn, duplicate });
    if (duplicate || !Number.isSafeInteger(cursor) || !(cursor > this.seen)) return;
    if (!sent) {
      this.inOrder(cursor + 1);
      return;
    }
    const data = { content: sent.content, message_id: frame.message_id };
    if (sent.metadata !== undefined) data.metadata = sent.metadata;
    this.take({ type: 'message', session_id: this.id, cursor, seq: cursor, turn, data });
  }

  refused(frame) {
    if (this.outbox.failed(frame)) {
      if (frame.code === 'not_joined') this.link.bounce('not joined');
      return;
    }
    const error = errorFromFrame(frame);
    if (frame.code === 'session_closed') {
      this.link.end(error);
      return;
    }
    const request = frame.ref === undefined ? this.requests.shift() : undefined;
    if (request) request.reject(error);
    else tell(this.options, 'onError', error);
  }

  // The queue between the connection and the application.

  enqueue(item) {
    this.queue.push({ ...item, epoch: this.epoch });
    this.serve();
  }

  serve() {
    while (this.queue.length > 0) {
      const item = this.queue[0];
      if (item.event && this.waiting.length === 0) return;
      this.queue.shift();
      const place = item.cursor === undefined ? null : { epoch: item.epoch, cursor: item.cursor };
      if (!item.event) {
        this.passed(place);
        continue;
      }
      if (place) this.handed = place;
      this.waiting.shift().resolve({ done: false, value: item.event });
    }
    if (this.overflow && this.link.ready && this.waiting.length > 0) {
      this.overflow = false;
      this.link.bounce('room again');
    }
    if (this.link.ended) {
      for (const { resolve, reject } of this.waiting.splice(0)) {
        if (this.failure) reject(this.failure);
        else resolve({ done: true, value: undefined });
      }
    }
  }

  /** A position without an event for the application. It waits for what the application still holds. */
  passed(place) {
    if (this.handed) {
      this.handed = place;
    } else {
      this.delivered = place;
      this.save();
    }
  }

  // Helpers.

  request(frame, answers, repeat, convert) {
    if (this.link.ended) return Promise.reject(this.closedError());
    return new Promise((resolve, reject) => {
      checkFrame(frame);
      const request = { frame, answers, repeat, convert, resolve, reject };
      if (!this.link.send(frame) && !repeat) {
        reject(new EbbgateError('not_connected', `"${frame.type}" needs a connection, and there is none now`));
        return;
      }
      this.requests.push(request);
    });
  }

  /** Gives up the requests that `which` names: whether they had an effect is not known. */
  dropRequests(which) {
    const lost = this.requests.filter(which);
    this.requests = this.requests.filter((request) => !lost.includes(request));
    for (const { frame, reject } of lost) {
      reject(new EbbgateError('connection_lost', `the connection broke before "${frame.type}" was answered`));
    }
  }

  /** Stores the place and the unaccepted messages; saves are done one after the other, the newest state last. */
  save() {
    if (this.unsaved) return this.unsaved;
    this.unsaved = this.saving.then(() => {
      this.unsaved = null;
      if (!this.id && this.outbox.entries.size === 0) return undefined;
      return this.store.save(this.key, {
        session_id: this.id,
        epoch: this.delivered?.epoch ?? null,
        cursor: this.delivered?.cursor ?? null,
        outbox: this.outbox.snapshot(),
      });
    });
    this.unsaved = this.unsaved.catch((cause) =>
      tell(this.options, 'onError', new EbbgateError('store_failed', 'the session could not be stored: ' + cause.message, { cause })),
    );
    this.saving = this.unsaved;
    return this.saving;
  }

  closedError() {
    if (this.failure) return this.failure;
    if (this.sawEnd) return new EbbgateError('session_closed', 'the session was ended at the gateway');
    return new EbbgateError('closed', 'this session is closed');
  }
}

/** Enters a session, and stays in it: resolves when the gateway first accepts us. */
export function connect(options) {
  let session;
  try {
    session = new Session(options);
  } catch (error) {
    return Promise.reject(error);
  }
  return session.begin();
}
