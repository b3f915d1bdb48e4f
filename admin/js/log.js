/**
 * One session's events in the browser: the newest page first, earlier ones on demand, later ones live.
 * Keeps a bounded number; what it lets go of can be loaded again.
 */
import { get, seg } from './api.js';
import { follow } from './sse.js';

const PAGE = 300;
const KEEP = 20000;

export class Log {
  /** `epoch`: of the log. `on`: `{ reset(events), event(event), another(), state(name, detail), failure(problem) }` */
  constructor(id, epoch, signal, on) {
    this.id = id;
    this.epoch = epoch;
    this.signal = signal;
    this.on = on;
    this.events = [];
    this.oldest = 1; // of the log on the gateway
    this.tail = new AbortController();
    signal.addEventListener('abort', () => this.tail.abort(), { once: true });
  }

  /** Whether the gateway has events before the first one here. */
  get hasEarlier() {
    return this.first > this.oldest;
  }

  get first() {
    return this.events.find((event) => event.cursor !== undefined)?.cursor ?? this.head + 1;
  }

  async page(query) {
    const { epoch } = this;
    const answer = await get(`sessions/${seg(this.id)}/events`, { order: 'desc', limit: PAGE, ...query }, this.signal);
    if (epoch !== this.epoch) throw new DOMException('It is another log now', 'AbortError');
    this.oldest = answer.oldest_cursor;
    this.head = Math.max(this.head ?? 0, answer.cursor);
    return answer.events.reverse();
  }

  /** Loads the end of the log, and follows it unless the session is closed. */
  async load(closed) {
    this.head = 0;
    this.events = await this.page();
    this.on.reset(this.events);
    if (closed) this.on.state('ended');
    else this.followOn();
  }

  /** The id stands for another log now: the events of the one before do not belong to what comes. */
  change(epoch) {
    this.epoch = epoch;
    this.head = 0;
    this.events = [];
    this.on.reset(this.events);
    this.on.another();
  }

  followOn() {
    this.tail.abort();
    this.tail = new AbortController();
    const tail = this.tail;
    if (this.signal.aborted) return;
    follow(this.id, this.events.findLast((event) => event.cursor !== undefined)?.cursor ?? this.head, this.epoch, {
      signal: tail.signal,
      event: (event) => this.take(event),
      state: this.on.state,
      resync: ({ epoch }) => {
        tail.abort();
        if (epoch !== this.epoch) this.change(epoch);
        this.load(false).catch((problem) => problem.name === 'AbortError' || this.on.failure(problem));
      },
    });
  }

  take(event) {
    this.events.push(event);
    if (this.events.length > KEEP) {
      this.events = this.events.slice(-KEEP / 2);
      this.on.reset(this.events);
    } else {
      this.on.event(event);
    }
  }

  /** Loads one page before what is here. */
  async earlier() {
    const events = await this.page({ before: this.first });
    this.events = [...events, ...this.events];
    this.on.reset(this.events);
  }
}
