/**
 * Streamed text, joined. A gateway's log has an answer as many `token_stream` events
 * and one final `response`; people want a text that grows.
 */
import { EbbgateError } from './errors.js';

/** The text of a `token_stream` event; '' where there is none. */
export function textOf(event) {
  const data = event?.data;
  if (typeof data === 'string') return data;
  for (const name of ['content', 'text', 'token', 'delta']) {
    if (typeof data?.[name] === 'string') return data[name];
  }
  return '';
}

function isFinal(event) {
  return event.type === 'response' && event.status === 'final';
}

/** What a final response says, as text. */
function finalText(event) {
  if (typeof event.content === 'string') return event.content;
  return event.content === undefined || event.content === null ? '' : JSON.stringify(event.content);
}

/**
 * Folds events into turns: feed it every event, show what it returns.
 *
 *   const turns = new Turns();
 *   for await (const event of session) { const turn = turns.apply(event); if (turn) draw(turn); }
 */
export class Turns {
  constructor() {
    this.byId = new Map();
  }

  /** All turns, oldest first. */
  list() {
    return [...this.byId.values()].sort((a, b) => a.turn - b.turn);
  }

  /** @returns the turn this event changed, or null */
  apply(event) {
    if (event.type === 'snapshot') {
      this.byId.clear();
      for (const kept of event.state?.messages ?? []) this.apply(kept);
      return null;
    }
    const id = event.turn ?? (event.type === 'message' ? event.cursor : undefined);
    if (id === undefined) return null;
    const turn = this.get(id);
    if (event.type === 'message') {
      turn.message = event.data?.content;
      turn.own = event.own === true;
      turn.source = event.source;
    } else if (event.type === 'token_stream') {
      turn.text += textOf(event);
      turn.status = 'streaming';
    } else if (event.type === 'retry_stream') {
      turn.text = ''; // a new attempt tells it from the start
    } else if (isFinal(event)) {
      turn.text = finalText(event) || turn.text;
      turn.content = event.content;
      turn.status = event.outcome?.status ?? 'ok';
      turn.outcome = event.outcome ?? { status: 'ok' };
    } else if (event.type !== 'message_abort') {
      turn.events.push(event);
    }
    return turn;
  }

  get(id) {
    let turn = this.byId.get(id);
    if (!turn) {
      turn = { turn: id, message: undefined, own: false, source: undefined, text: '', status: 'waiting', events: [] };
      this.byId.set(id, turn);
    }
    return turn;
  }
}

/**
 * What a snapshot has of an answer: its final response, or undefined while that may still come.
 * @throws EbbgateError `answer_lost`: the log is another one or was trimmed, and the answer went with it
 */
function keptFinal({ messages = [], epoch, event_cursor: head }, { turn, messageId, epoch: epochBefore }) {
  const there = messages.find((event) => event.type === 'message' && event.cursor === turn);
  const ours = there ? there.data?.message_id === messageId : (epoch ?? epochBefore) === epochBefore;
  const finals = messages.filter(isFinal);
  const final = ours ? finals.find((event) => event.turn === turn) : undefined;
  // Turns of a session end in order, unless one is aborted: a later end says that this one has ended, too.
  const later = finals.some((event) => event.turn > turn && event.outcome?.status !== 'aborted');
  if (!final && (!ours || head < turn || later)) {
    throw new EbbgateError('answer_lost', 'the log is another one or was trimmed, and this answer is not in what is left of it', { ref: messageId });
  }
  return final;
}

/**
 * The answer to one message: iterate for the pieces of text as they come, await `final` for the whole.
 * It reads the session's events, so use it where nothing else does; events of other turns go by.
 */
export class Answer {
  constructor(session, sent) {
    this.session = session;
    // What is so when the message is accepted: the answer may be read much later.
    this.sent = sent.then((at) => ({ ...at, epoch: session.epoch, older: session.snapshots }));
    this.text = '';
    this.pieces = this.read();
    this.sent.catch(() => {});
  }

  /** Leaving the loop early ends nothing: `final` reads on. */
  [Symbol.asyncIterator]() {
    return { next: () => this.pieces.next(), return: async () => ({ done: true, value: undefined }) };
  }

  /** `{ text, content, outcome, turn, cursor }`. Reads to the end if nobody iterates. */
  get final() {
    this.whole ??= (async () => {
      while (!(await this.pieces.next()).done);
      return this.result;
    })();
    return this.whole;
  }

  async *read() {
    const sent = await this.sent;
    const { turn } = sent;
    if (turn === undefined) throw new EbbgateError('no_turn', 'this message started no turn');
    const earlier = await this.earlier(sent);
    if (earlier) {
      yield* this.finish(earlier);
      return;
    }
    for await (const event of this.session) {
      if (event.type === 'snapshot') {
        if (sent.older.includes(event) && !(event.state?.event_cursor >= turn)) continue; // from before the message
        const kept = keptFinal(event.state ?? {}, sent);
        if (!kept) continue;
        yield* this.finish(kept);
        return;
      }
      if (event.turn !== turn) continue;
      if (event.type === 'token_stream') {
        const piece = textOf(event);
        this.text += piece;
        if (piece) yield piece;
      } else if (event.type === 'retry_stream') {
        this.text = ''; // a new attempt tells it from the start
      } else if (isFinal(event)) {
        yield* this.finish(event);
        return;
      }
    }
    throw new EbbgateError('closed', 'the session was closed before the answer was complete');
  }

  /** The final response, where the session's events have passed it: the message repeats one of long ago. */
  async earlier({ cursor, turn }) {
    const { place } = this.session;
    for (let since = cursor; since < place; ) {
      const { events } = await this.session.history({ since, limit: 500 });
      const final = events.find((event) => event.turn === turn && isFinal(event));
      if (final || events.length === 0) return final;
      since = events.at(-1).cursor;
    }
    return undefined;
  }

  *finish(event) {
    const whole = finalText(event);
    const rest = whole.startsWith(this.text) ? whole.slice(this.text.length) : '';
    if (whole) this.text = whole;
    this.result = {
      text: this.text,
      content: event.content,
      outcome: event.outcome ?? { status: 'ok' },
      turn: event.turn,
      cursor: event.cursor,
    };
    if (rest) yield rest;
  }
}
