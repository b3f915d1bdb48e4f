/**
 * A session's log as a conversation: each message with everything that its agent did for it, streamed
 * pieces joined, in the order it happened. Pure: events in, items out; drawing is elsewhere.
 *
 * An item is `{ kind: 'turn', turn, message, parts, status, … }` or `{ kind: 'note', event }`.
 * Parts of a turn: `text`, `reasoning`, `tool`, `status`, `fault`, `again`, `abort`, `other`.
 */
import { textOf } from '/lib/text.js';

/** Told to clients and not stored: how a turn is being handed out. */
const DELIVERY = new Set(['message_ack', 'message_nack', 'delivery_retry']);
const SILENT = new Set(['stream_end', 'presence_join', 'presence_update', 'presence_leave', 'typing']);

const first = (data, names) => {
  for (const name of names) if (typeof data?.[name] === 'string' && data[name] !== '') return data[name];
  return null;
};

const toolId = (data) => first(data, ['id', 'call_id', 'tool_call_id']);
const toolName = (data) => first(data, ['name', 'tool', 'tool_name']);

/** What an answer says: text, or null when it is other JSON. */
export const asText = (content) => (typeof content === 'string' ? content : null);

export class Conversation {
  constructor() {
    this.items = [];
    this.turns = new Map();
  }

  /** @returns the item that this event began or changed, or null */
  apply(event) {
    if (SILENT.has(event.type)) return null;
    const id = event.turn ?? (event.type === 'message' ? event.cursor : undefined);
    if (id === undefined) return this.note(event);
    const item = this.turn(id);
    if (Number.isSafeInteger(event.cursor)) item.last = Math.max(item.last, event.cursor);
    this.fold(item, event);
    return item;
  }

  note(event) {
    if (!Number.isSafeInteger(event.cursor) && event.type === 'status') return null;
    const item = { kind: 'note', event };
    this.items.push(item);
    return item;
  }

  turn(id) {
    let item = this.turns.get(id);
    if (!item) {
      item = { kind: 'turn', turn: id, message: null, parts: [], status: 'waiting', final: null, outcome: null, delivery: '', last: 0 };
      this.turns.set(id, item);
      this.items.push(item);
    }
    return item;
  }

  fold(item, event) {
    const { type, data } = event;
    if (type === 'message') {
      item.message = event;
    } else if (type === 'response') {
      if (event.status === 'final') this.finish(item, event);
    } else if (DELIVERY.has(type)) {
      this.deliver(item, event);
    } else {
      if (item.status === 'waiting') item.status = 'streaming';
      this.part(item, type, data, event);
    }
  }

  finish(item, event) {
    item.final = event;
    item.outcome = event.outcome ?? { status: 'ok' };
    item.status = String(item.outcome.status ?? 'ok');
    item.delivery = '';
  }

  deliver(item, event) {
    if (item.final) return;
    if (event.type === 'message_ack') item.delivery = 'a worker has it';
    else if (event.type === 'message_nack') item.delivery = `an attempt failed: ${first(event, ['error']) ?? first(event.data, ['error']) ?? 'no reason given'}`;
    else item.delivery = 'it is tried again';
  }

  part(item, type, data, event) {
    const piece = textOf(event);
    switch (type) {
      case 'token_stream':
        if (piece) return this.join(item, 'text', piece);
        break;
      case 'reasoning_stream':
        if (piece) return this.join(item, 'reasoning', piece);
        break;
      case 'tool_call_stream':
      case 'tool_progress_stream':
      case 'tool_result_stream':
        return this.tool(item, type, data);
      case 'status': {
        const text = first(data, ['text', 'message', 'status', 'content']) ?? asText(data);
        if (text) return this.latest(item, 'status', text);
        break;
      }
      case 'stream_error':
        item.parts.push({ kind: 'fault', text: first(data, ['message', 'error', 'text']) ?? asText(data) ?? 'The stream broke' });
        return undefined;
      case 'retry_stream':
        item.parts.push({ kind: 'again' });
        return undefined;
      case 'message_abort':
        item.parts.push({ kind: 'abort', reason: first(data, ['reason']), source: event.source });
        return undefined;
      default:
    }
    item.parts.push({ kind: 'other', event });
    return undefined;
  }

  join(item, kind, piece) {
    const last = item.parts.at(-1);
    if (last?.kind === kind) last.text += piece;
    else item.parts.push({ kind, text: piece });
  }

  latest(item, kind, text) {
    const last = item.parts.at(-1);
    if (last?.kind === kind) last.text = text;
    else item.parts.push({ kind, text });
  }

  /** A call, its progress and its result are one part, found by id, else by name, else the last open one. */
  tool(item, type, data) {
    const id = toolId(data);
    const name = toolName(data);
    const open = item.parts.filter((part) => part.kind === 'tool' && part.result === undefined);
    let part = open.findLast((p) => (id !== null && p.id === id) || (id === null && name !== null && p.name === name));
    if (!part && type !== 'tool_call_stream' && id === null && name === null) part = open.at(-1);
    if (!part || (type === 'tool_call_stream' && id === null)) {
      part = { kind: 'tool', id, name, call: undefined, progress: 0, result: undefined };
      item.parts.push(part);
    }
    part.name ??= name;
    if (type === 'tool_call_stream') part.call = part.call === undefined ? data : [part.call, data].flat();
    else if (type === 'tool_progress_stream') part.progress += 1;
    else part.result = data ?? null;
  }
}

/** The streamed text of a turn since its last new try, as one. */
export function streamed(item) {
  const from = item.parts.findLastIndex((part) => part.kind === 'again') + 1;
  return item.parts.slice(from).filter((part) => part.kind === 'text').map((part) => part.text).join('');
}
