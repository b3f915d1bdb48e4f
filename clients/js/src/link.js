/**
 * One lasting connection: open, hello, keep alive, and come back after a loss.
 *
 * Owns the socket, the token, the backoff and the timers. What is said over the
 * connection belongs to the owner (a Session or a Worker), who gives:
 *   helloFields()      the fields of the next hello
 *   onReady(hello)     hello_ok arrived
 *   onFrame(frame)     every other frame that is not about the connection itself
 *   onDown(outcome)    the connection is gone; what was sent may or may not have arrived
 *   onEnd(error|null)  it will not come back
 *   onError(error)     something went wrong that changes nothing
 *   onStatus(status)   for display
 * A frame is handled whole before the next one; nothing is called after onEnd.
 */
import { Backoff } from './backoff.js';
import { EbbgateError, errorFromFrame, judge } from './errors.js';
import { findWebSocket, openSocket, webSocketUrl } from './socket.js';

export const VERSION = '0.1.0';
/** Refusals in a row after which fresh tokens are no longer tried. */
const MAX_REAUTH = 2;
/** Parts of the heartbeat in which an answer to a ping is waited for. */
const SILENT_PARTS = 4;

const realSleep = (ms, signal) =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => (clearTimeout(timer), resolve()), { once: true });
  });

export class Link {
  constructor(options, owner) {
    this.url = webSocketUrl(options.url);
    this.options = options;
    this.owner = owner;
    this.sleep = options.sleep ?? realSleep;
    this.backoff = new Backoff(options.retry);
    this.handshakeMs = options.handshakeTimeoutMs ?? 10000;
    this.token = null;
    this.reauths = 0;
    this.refreshing = false;
    this.socket = null;
    this.ready = false;
    this.ended = false;
    this.hello = null;
    this.bounced = null;
    this.waker = null;
    this.pings = 0;
    this.inbound = 0;
  }

  /** Starts connecting; returns at once. */
  start() {
    this.run().catch((error) => this.end(error));
    const wake = () => this.waker?.abort();
    if (typeof globalThis.addEventListener === 'function' && globalThis.navigator) {
      globalThis.addEventListener('online', wake);
      this.unlisten = () => globalThis.removeEventListener('online', wake);
    }
  }

  /** Sends a frame when the handshake is done. @returns {boolean} whether it was handed to the socket */
  send(frame) {
    if (!this.ready || !this.socket) return false;
    this.socket.send(JSON.stringify(frame));
    return true;
  }

  /** Drops this connection and opens another one at once; `onDown` is called before this returns. */
  bounce(why) {
    if (!this.socket) return;
    this.bounced = why;
    this.socket.close({ code: 1006, reason: why });
  }

  /** Ends for good. `error` null: on purpose. */
  end(error = null) {
    if (this.ended) return;
    this.ended = true;
    this.unlisten?.();
    this.waker?.abort();
    const had = this.socket;
    if (had) had.close({ code: 1000, reason: 'closed here' });
    this.owner.onStatus({ state: 'closed', error });
    this.owner.onEnd(error);
  }

  async run() {
    this.WebSocket = await findWebSocket(this.options.WebSocket);
    while (!this.ended) {
      this.owner.onStatus({ state: 'connecting', attempt: this.backoff.count });
      const out = await this.attempt();
      if (this.ended) return;
      const delayMs = this.decide(out);
      if (this.ended) return;
      if (delayMs > 0) await this.pause(delayMs);
    }
  }

  /** What follows from how a connection ended: milliseconds to wait, or the end. */
  decide(out) {
    if (this.bounced !== null) {
      this.bounced = null;
      return 0;
    }
    const verdict = judge(out);
    if (verdict.action === 'stop') {
      this.end(verdict.error);
      return 0;
    }
    if (verdict.action === 'reauth') {
      this.reauths += 1;
      if (typeof this.options.token !== 'function' || this.reauths > MAX_REAUTH) {
        this.end(verdict.error);
        return 0;
      }
      this.token = null;
      this.tokenReason = 'refused';
    }
    if (this.backoff.exhausted) {
      this.end(verdict.error);
      return 0;
    }
    if (verdict.action === 'reauth' && this.reauths === 1) return 0;
    const delayMs = this.backoff.next(verdict.floor);
    this.owner.onStatus({ state: 'waiting', delayMs, error: verdict.error });
    return delayMs;
  }

  async pause(ms) {
    this.waker = new AbortController();
    await this.sleep(ms, this.waker.signal);
    this.waker = null;
  }

  async freshToken(reason) {
    const given = this.options.token;
    if (typeof given !== 'function') return given ?? null;
    const token = await given({ reason });
    if (typeof token !== 'string' || token === '') throw new TypeError('the token function gave no token');
    return token;
  }

  /** One connection from its opening to its end. @returns how it ended, for `judge` */
  async attempt() {
    if (this.token === null) {
      try {
        this.token = await this.freshToken(this.tokenReason ?? 'connect');
      } catch (cause) {
        this.owner.onError(new EbbgateError('token_failed', 'no token to connect with: ' + cause.message, { cause }));
        return { code: 1006, reason: 'no token to connect with', failure: cause };
      }
    }
    if (this.ended) return { code: 1000 };
    const out = await new Promise((resolve) => this.converse(resolve));
    clearTimeout(this.timer);
    this.socket = null;
    return out;
  }

  converse(resolve) {
    const state = { refusal: null, reconnectMs: null };
    const on = {
      open: () => this.sayHello(),
      message: (data) => this.receive(data, state),
      close: (out) => {
        const wasReady = this.ready;
        this.ready = false;
        clearTimeout(this.timer);
        this.refreshing = false;
        const whole = { ...out, ...state };
        if (wasReady) this.owner.onDown(whole);
        resolve(whole);
      },
    };
    try {
      this.socket = openSocket(this.WebSocket, this.url, on);
    } catch (failure) {
      resolve({ code: 1006, reason: 'cannot open a socket: ' + failure.message, failure });
      return;
    }
    this.timer = setTimeout(() => this.drop('no answer to hello'), this.handshakeMs);
  }

  drop(reason) {
    this.socket?.close({ code: 1006, reason }, true);
  }

  sayHello() {
    const hello = {
      type: 'hello',
      protocol_min: 1,
      protocol_max: 1,
      client: { name: this.options.clientName ?? 'ebbgate-js', version: VERSION },
      ...this.owner.helloFields(),
    };
    if (this.token !== null) hello.token = this.token;
    this.socket.send(JSON.stringify(hello));
  }

  receive(data, state) {
    this.lastInbound = performance.now();
    this.inbound += 1;
    let frame = null;
    try {
      frame = JSON.parse(data);
    } catch {
      // told below
    }
    if (frame === null || typeof frame !== 'object' || Array.isArray(frame)) {
      this.owner.onError(new EbbgateError('bad_frame', 'the gateway sent a frame that is not a JSON object'));
      return;
    }
    if (!this.ready) {
      this.handshake(frame, state);
      return;
    }
    this.backoff.reset();
    this.reauths = 0;
    switch (frame.type) {
      case 'ping':
        this.send({ type: 'pong' });
        return;
      case 'reconnect':
        state.reconnectMs = frame.retry_after_ms;
        return;
      case 'token_expiring':
        this.refresh();
        return;
      case 'auth_ok':
        this.refreshing = false;
        return;
      case 'error':
        if (this.refreshing && frame.code === 'auth_unauthorized') {
          this.refreshing = false; // the old token stays in force until 4001
          this.owner.onError(errorFromFrame(frame));
          return;
        }
    }
    this.owner.onFrame(frame);
  }

  handshake(frame, state) {
    if (frame.type === 'hello_ok') {
      clearTimeout(this.timer);
      this.hello = frame;
      this.ready = true;
      this.watch(frame.policy?.heartbeat_ms);
      this.owner.onReady(frame);
    } else if (frame.type === 'hello_error' || frame.type === 'error') {
      state.refusal = frame;
      clearTimeout(this.timer);
      // The gateway closes with a code; should it not, we do not wait for it for long.
      this.timer = setTimeout(() => this.drop('refused'), Math.min(1000, this.handshakeMs));
    } else if (frame.type === 'reconnect') {
      state.reconnectMs = frame.retry_after_ms;
    }
  }

  /**
   * Pings when the gateway is silent for a heartbeat, drops the connection when that is not answered in another.
   * The other one is waited for in parts: when timers were held up (a hidden tab, a laptop that slept), what had
   * arrived meanwhile is read before the next part is over.
   */
  watch(heartbeatMs) {
    if (!(heartbeatMs > 0)) return;
    let pinged = null;
    let parts = 0;
    const look = () => {
      let waitMs = heartbeatMs - (performance.now() - this.lastInbound);
      if (pinged === this.inbound) {
        parts += 1;
        if (parts === SILENT_PARTS) {
          this.drop('the gateway is silent');
          return;
        }
        waitMs = heartbeatMs / SILENT_PARTS;
      } else if (waitMs <= 0) {
        pinged = this.inbound;
        parts = 0;
        waitMs = heartbeatMs / SILENT_PARTS;
        this.pings += 1;
        this.send({ type: 'ping', id: String(this.pings) });
      }
      this.timer = setTimeout(look, waitMs);
    };
    this.timer = setTimeout(look, heartbeatMs);
  }

  async refresh() {
    if (typeof this.options.token !== 'function' || this.refreshing) return;
    this.refreshing = true;
    const socket = this.socket;
    try {
      this.token = await this.freshToken('expiring');
      if (this.socket === socket) this.send({ type: 'auth', token: this.token });
    } catch (cause) {
      this.refreshing = false;
      this.owner.onError(new EbbgateError('token_failed', 'no fresh token: ' + cause.message, { cause }));
    }
  }
}
