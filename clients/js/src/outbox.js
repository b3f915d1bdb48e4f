/**
 * Messages on their way: each has an id, is kept until the gateway says that it is on
 * disk, and goes out again with the same id after a loss. In the order of send(), at most
 * `window` at a time, so that a refusal of one cannot let a later one overtake it.
 */
import { Backoff } from './backoff.js';
import { EbbgateError, RETRYABLE, errorFromFrame } from './errors.js';

/** How many of our own ids are remembered after they were accepted. */
const REMEMBERED = 1000;

export class Outbox {
  /**
   * @param {object} hooks  transmit(frame) -> boolean, save() -> Promise, sleep(ms, signal)
   * @param {object} options  window, retry
   */
  constructor(hooks, options) {
    this.hooks = hooks;
    this.window = options.window ?? 1;
    this.backoff = new Backoff(options.retry);
    this.entries = new Map(); // id -> { frame, promise, resolve, reject, inFlight }
    this.mine = new Map(); // ids we sent -> true, oldest first
    this.open = false;
    this.holding = null;
    this.maxPayload = Infinity;
  }

  add(messageId, content, metadata) {
    const frame = { type: 'message', content, message_id: messageId };
    if (metadata !== undefined) frame.metadata = metadata;
    const known = this.entries.get(messageId);
    if (known) return known;
    const entry = { frame, inFlight: false, saved: false };
    entry.promise = new Promise((resolve, reject) => {
      entry.resolve = resolve;
      entry.reject = reject;
    });
    this.entries.set(messageId, entry);
    this.remember(messageId);
    return entry;
  }

  remember(messageId) {
    this.mine.delete(messageId);
    this.mine.set(messageId, true);
    if (this.mine.size > REMEMBERED) this.mine.delete(this.mine.keys().next().value);
  }

  /** The connection may carry messages now. */
  up(maxPayload) {
    this.maxPayload = maxPayload > 0 ? maxPayload : Infinity;
    this.open = true;
    this.pump();
  }

  /** The connection is gone: what was in flight is unknown and will be repeated. */
  down() {
    this.open = false;
    for (const entry of this.entries.values()) entry.inFlight = false;
  }

  pump() {
    if (!this.open || this.holding) return;
    let flying = 0;
    for (const [id, entry] of this.entries) {
      if (flying >= this.window || !entry.saved) return;
      flying += 1;
      if (entry.inFlight) continue;
      const bytes = new TextEncoder().encode(JSON.stringify(entry.frame)).length;
      if (bytes > this.maxPayload) {
        flying -= 1;
        this.refuse(id, new EbbgateError('payload_too_large', `the message has ${bytes} bytes, the gateway takes ${this.maxPayload}`, { ref: id }));
        continue;
      }
      entry.inFlight = this.hooks.transmit(entry.frame);
    }
  }

  /** The gateway has it. @returns the message's frame, or undefined if it was not one of these */
  settle(messageId, result) {
    const entry = this.entries.get(messageId);
    if (!entry) return undefined;
    this.entries.delete(messageId);
    this.backoff.reset();
    this.hooks.save();
    entry.resolve({ messageId, ...result });
    this.pump();
    return entry.frame;
  }

  refuse(messageId, error) {
    const entry = this.entries.get(messageId);
    if (!entry) return;
    this.entries.delete(messageId);
    this.mine.delete(messageId);
    this.hooks.save();
    entry.reject(error);
    this.pump();
  }

  /** An `error` frame. @returns {boolean} whether it was about one of these */
  failed(frame) {
    let id = frame.ref;
    if (id === undefined && frame.code === 'payload_too_large') {
      const flying = [...this.entries].filter(([, entry]) => entry.inFlight);
      if (flying.length === 1) id = flying[0][0];
    }
    const entry = this.entries.get(id);
    if (!entry) return false;
    if (!RETRYABLE.has(frame.code)) {
      this.refuse(id, errorFromFrame(frame));
      return true;
    }
    entry.inFlight = false;
    this.hold(frame.retry_after_seconds);
    return true;
  }

  hold(seconds) {
    if (this.holding) return;
    this.holding = new AbortController();
    const floor = Number(seconds) > 0 ? Number(seconds) : 0;
    this.hooks.sleep(this.backoff.next(floor), this.holding.signal).then(() => {
      this.holding = null;
      this.pump();
    });
  }

  /** As stored beside the cursor. */
  snapshot() {
    return [...this.entries.values()].map(({ frame }) => {
      const kept = { message_id: frame.message_id, content: frame.content };
      if (frame.metadata !== undefined) kept.metadata = frame.metadata;
      return kept;
    });
  }

  restore(list) {
    for (const item of list ?? []) {
      const entry = this.add(item.message_id, item.content, item.metadata);
      entry.saved = true;
      entry.promise.catch(() => {}); // nobody may be waiting for it in this life
    }
  }

  /** Nothing more will be sent from here. Entries stay in the store, for the next life. */
  end(error) {
    this.open = false;
    this.holding?.abort();
    for (const entry of this.entries.values()) {
      entry.promise.catch(() => {});
      entry.reject(error);
    }
  }
}
