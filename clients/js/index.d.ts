/** Any JSON value. */
export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

/** One event of a session's log, or (without a cursor) a passing notice such as presence. */
export interface SessionEvent {
  type: string;
  session_id?: string;
  /** Position in the log, from 1; absent when the event is not stored. */
  cursor?: number;
  seq?: number;
  /** Absent on a message of our own that was accepted just now. */
  event_id?: string;
  timestamp?: number;
  source?: string;
  /** The turn it belongs to: the cursor of the message that is answered. */
  turn?: number;
  data?: any;
  /** On `message`: it was sent through this object. */
  own?: boolean;
  /** On `response`: `"final"`. */
  status?: string;
  content?: any;
  outcome?: { status: string; [name: string]: unknown };
  /** On `snapshot`: what is left of the log. */
  state?: Snapshot;
  [name: string]: unknown;
}

export interface Snapshot {
  session_id?: string;
  agent_id?: string;
  state?: string;
  epoch?: string;
  oldest_cursor?: number;
  event_cursor?: number;
  messages?: SessionEvent[];
}

export interface StoredState {
  session_id: string | null;
  epoch: string | null;
  cursor: number | null;
  outbox: Array<{ message_id: string; content: Json; metadata?: { [name: string]: Json } }>;
}

/** Where a session's place is kept. */
export interface Store {
  load(key: string): StoredState | null | Promise<StoredState | null>;
  save(key: string, state: StoredState): void | Promise<void>;
  remove(key: string): void | Promise<void>;
}

export class MemoryStore implements Store {
  load(key: string): StoredState | null;
  save(key: string, state: StoredState): void;
  remove(key: string): void;
}

/** Keeps sessions in localStorage (default) or any other Storage. */
export class LocalStorageStore implements Store {
  constructor(storage?: Storage, prefix?: string);
  load(key: string): StoredState | null;
  save(key: string, state: StoredState): void;
  remove(key: string): void;
}

export interface RetryOptions {
  /** First wait; default 500. */
  initialMs?: number;
  /** Longest wait of our own; default 30000. A wait the gateway asks for comes on top. */
  maxMs?: number;
  /** Default 2. */
  factor?: number;
  /** Share of a wait that is random; default 0.5. */
  jitter?: number;
  /** Give up after so many waits in a row; default: never. */
  attempts?: number;
  random?: () => number;
}

export type TokenReason = 'connect' | 'refused' | 'expiring';

export type Status =
  | { state: 'connecting'; attempt: number }
  | { state: 'replaying' | 'open'; hello: Record<string, any> }
  | { state: 'waiting'; delayMs: number; error: EbbgateError }
  | { state: 'closed'; error: EbbgateError | null };

export interface LinkOptions {
  /** `ws:`, `wss:`, `http:` or `https:`; in a page also relative, as `/ws`. A bare host gets the path `/ws`. */
  url: string | URL;
  /** A token, or a function that fetches one when it is needed. */
  token?: string | ((why: { reason: TokenReason }) => string | Promise<string>);
  retry?: RetryOptions;
  handshakeTimeoutMs?: number;
  /** Told to the gateway, for its operators. */
  clientName?: string;
  /** The WebSocket class to use where there is no global one and the package `ws` is not installed. */
  WebSocket?: unknown;
  signal?: AbortSignal;
  sleep?: (ms: number, signal: AbortSignal) => Promise<void>;
  onStatus?: (status: Status) => void;
  /** Something went wrong that changes nothing, or that the gateway told without saying about what. */
  onError?: (error: EbbgateError) => void;
}

export interface ConnectOptions extends LinkOptions {
  agent: string;
  /** Enter this session; without it, the one in the store, or a new one. */
  session?: string;
  /** Make the session named by `session` if it is not there. */
  create?: boolean;
  /** Where to begin in `session` when the store knows no place; default `start`. */
  from?: 'start' | 'now' | 'acked' | number;
  store?: Store;
  /** The store's key; default: the agent, and the session if one is named. */
  key?: string;
  /** Default `["streaming", "ack"]`. */
  capabilities?: string[];
  /** Messages on their way at once; more than 1 may be put out of order by a refusal. Default 1. */
  sendWindow?: number;
  /** Events kept for a slow reader; beyond that the gateway keeps them. Default 5000. */
  maxQueued?: number;
  /** Events were missing; `replay`: they are fetched now, `accepted`: the gateway does not have them. */
  onGap?: (gap: { expected: number; next: number; action: 'replay' | 'accepted' }) => void;
  /** The log behind our place is gone; a `snapshot` event follows. */
  onResync?: (resync: { reason: 'trimmed' | 'cursor_ahead' | 'epoch_changed'; from: number | null; oldestCursor: number; cursor: number }) => void;
}

export interface SendOptions {
  /** Default: a fresh one. */
  messageId?: string;
  metadata?: { [name: string]: Json };
}

export interface Accepted {
  messageId: string | null;
  cursor: number | null;
  turn?: number;
  duplicate: boolean;
  /** Only for the text `/stop`. */
  aborted?: boolean;
}

export interface Page {
  events: SessionEvent[];
  oldestCursor: number;
  cursor: number;
}

export interface FinalAnswer {
  text: string;
  content: any;
  outcome: { status: string; [name: string]: unknown };
  turn: number;
  cursor: number;
}

/** Iterate for pieces of text, await `final` for the whole. Reads the session's events. */
export class Answer implements AsyncIterable<string> {
  readonly text: string;
  readonly final: Promise<FinalAnswer>;
  [Symbol.asyncIterator](): AsyncIterator<string>;
}

export class Session implements AsyncIterable<SessionEvent> {
  readonly id: string | null;
  readonly agent: string;
  readonly epoch: string | null;
  readonly state: Status['state'];
  /** Messages that are not known to be stored yet. */
  readonly pending: StoredState['outbox'];
  /** Resolves when the message is on the gateway's disk. */
  send(content: Json, options?: SendOptions): Promise<Accepted>;
  ask(content: Json, options?: SendOptions): Answer;
  abort(options?: { turn?: number; reason?: string }): Promise<{ aborted: boolean; turn?: number }>;
  history(options?: { since?: number; before?: number; limit?: number }): Promise<Page>;
  ack(cursor?: number): void;
  presence(status: string, data?: Json): void;
  typing(): void;
  /** Stores that everything handed out so far is done with. */
  commit(): Promise<void>;
  leave(): Promise<void>;
  close(options?: { commit?: boolean }): Promise<void>;
  next(): Promise<IteratorResult<SessionEvent, undefined>>;
  [Symbol.asyncIterator](): AsyncIterator<SessionEvent, undefined>;
}

/** Enters a session and stays in it; resolves when the gateway first accepts us. */
export function connect(options: ConnectOptions): Promise<Session>;

export interface TurnView {
  turn: number;
  message: any;
  own: boolean;
  source?: string;
  text: string;
  /** `waiting`, `streaming`, or how it ended: `ok`, `error`, `aborted`, `rejected`. */
  status: string;
  content?: any;
  outcome?: { status: string; [name: string]: unknown };
  /** Everything else that belongs to the turn: tool calls, reasoning, … */
  events: SessionEvent[];
}

/** Folds events into turns. */
export class Turns {
  /** The turn this event changed, or null. */
  apply(event: SessionEvent): TurnView | null;
  list(): TurnView[];
}

export function textOf(event: SessionEvent): string;

export interface EmitOptions {
  /** The event's own id: the same id is stored once. */
  id?: string;
  /** Shown to whoever listens now, not stored. */
  ephemeral?: boolean;
}

export interface Turn {
  readonly sessionId: string;
  readonly turn: number;
  /** 1 for the first; it rises when the gateway hands the turn out again. */
  readonly attempt: number;
  readonly message: SessionEvent;
  readonly content: any;
  readonly metadata: any;
  readonly historyCursor?: number;
  readonly traceparent?: string;
  /** Aborted when the turn is stopped; hand it to `fetch` and the like. */
  readonly signal: AbortSignal;
  emit(event: string, data: Json, options?: EmitOptions): Promise<void>;
  history(options?: { since?: number; before?: number; limit?: number }): Promise<Page>;
}

export class Final {
  constructor(content: Json, outcome?: { status: 'ok' | 'error' | 'aborted' | 'rejected'; [name: string]: Json });
}

export class TurnFailed extends Error {
  constructor(message: string, options?: { retry?: boolean; retryAfterSeconds?: number });
}

export type Yielded = string | ({ event: string; data?: Json } & EmitOptions) | Final;
export type Handler = (turn: Turn) => AsyncIterable<Yielded> | Promise<Json | Final | void> | Iterable<Yielded>;

export interface AgentOptions extends LinkOptions {
  /** Turns at once; default 1. */
  concurrency?: number;
  /** Emits that may be unconfirmed before the generator waits; default 32. */
  emitWindow?: number;
  /** How often a silent turn extends its lease; default: a third of the lease the gateway tells. */
  extendMs?: number;
  /** How long after a reconnect a turn may take to come back before its handler is stopped; default 30000. */
  reattachMs?: number;
}

export class AgentServer {
  readonly id: string;
  readonly workerId?: string;
  /** Resolves when the gateway first accepted this worker. */
  readonly ready: Promise<AgentServer>;
  /** Resolves when stopped; rejects if the gateway refused this worker for good. */
  readonly closed: Promise<void>;
  publish(sessionId: string, event: string, data: Json, options?: { id?: string }): Promise<{ eventId: string; cursor: number }>;
  stop(options?: { timeoutMs?: number }): Promise<void>;
}

/** Serves agent `id`: what `handler` yields is streamed, what it returns (default: all text) ends the turn. */
export function serveAgent(id: string, handler: Handler, options: AgentOptions): AgentServer;

export class EbbgateError extends Error {
  readonly code: string;
  readonly nextStep?: string;
  readonly retryAfterSeconds?: number;
  readonly field?: string;
  readonly ref?: string;
  readonly requiredScope?: string;
  readonly closeCode?: number;
  readonly httpStatus?: number;
}

export interface Verdict {
  action: 'retry' | 'reauth' | 'stop';
  /** Seconds. */
  floor: number;
  error: EbbgateError;
}

export function judge(outcome: {
  code?: number;
  reason?: string;
  refusal?: Record<string, any> | null;
  httpStatus?: number;
  retryAfter?: string | number;
  reconnectMs?: number | null;
}): Verdict;

export class Backoff {
  constructor(options?: RetryOptions);
  readonly exhausted: boolean;
  /** Milliseconds to wait; `floor` in seconds. */
  next(floor?: number): number;
  reset(): void;
}

export const VERSION: string;
