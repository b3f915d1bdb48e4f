/**
 * Conformance driver of the JavaScript client: commands as JSON lines on stdin, results and
 * notes as JSON lines on stdout. It decides nothing; what is right is in the scenarios.
 */
import { createInterface } from 'node:readline';
import { createRequire } from 'node:module';
import { connect, serveAgent, Final, MemoryStore, TurnFailed } from '../../../clients/js/src/index.js';
import { FileStore } from '../../../clients/js/src/node.js';

const out = (line) => process.stdout.write(JSON.stringify(line) + '\n');
const note = (name, fields) => out({ note: name, ...fields });
const told = (error) => ({
  code: error.code ?? error.name,
  message: error.message,
  next_step: error.nextStep,
  retry_after_seconds: error.retryAfterSeconds,
  field: error.field,
  close_code: error.closeCode,
  http_status: error.httpStatus,
});

let WebSocketClass;
if (process.env.EBBGATE_WS) WebSocketClass = createRequire(import.meta.url)(process.env.EBBGATE_WS);

const memory = new MemoryStore();
let slowStore = false;
let saveGates = [];
const loggedStore = {
  load: (key) => memory.load(key),
  async save(key, state) {
    if (slowStore) await new Promise((resolve) => setTimeout(resolve, 50));
    if (saveGates.length > 0) await saveGates.shift().promise;
    note('saved', { state });
    memory.save(key, state);
  },
  remove: (key) => memory.remove(key),
};

let session = null;
let server = null;
let gates = new Map();

function gate(name) {
  if (!gates.has(name)) {
    const entry = {};
    entry.promise = new Promise((resolve) => (entry.open = resolve));
    gates.set(name, entry);
  }
  return gates.get(name);
}

function common(options) {
  const retry = options.retry ?? {};
  const made = {
    url: options.url,
    WebSocket: WebSocketClass,
    retry: {
      initialMs: (retry.initial ?? 0.5) * 1000,
      maxMs: (retry.maximum ?? 30) * 1000,
      attempts: retry.attempts ?? Infinity,
      random: () => options.random ?? 0,
    },
    handshakeTimeoutMs: (options.handshake_timeout ?? 10) * 1000,
    onStatus: ({ state, error, delayMs }) =>
      note('status', { state, code: error?.code, delay: delayMs === undefined ? undefined : delayMs / 1000 }),
    onError: (error) => note('error', told(error)),
  };
  if (options.raising) {
    // callbacks that raise after they told
    for (const name of ['onStatus', 'onError']) {
      const callback = made[name];
      made[name] = (value) => {
        callback(value);
        throw new Error('a mistake in a callback');
      };
    }
    process.on('uncaughtException', () => {});
  }
  if (!options.real_sleep) {
    made.sleep = (ms) => {
      note('sleep', { seconds: ms / 1000 });
      return new Promise((resolve) => setTimeout(resolve, 1));
    };
  }
  if (typeof options.token === 'string') made.token = options.token;
  if (Array.isArray(options.token)) {
    const tokens = [...options.token];
    made.token = async ({ reason }) => {
      note('token', { reason });
      if (tokens.length === 0) throw new Error('no more tokens');
      const token = tokens.shift();
      return token === null ? new Promise(() => {}) : token;
    };
  }
  return made;
}

async function open(options) {
  gates = new Map();
  const made = { ...common(options), agent: options.agent };
  for (const name of ['session', 'create', 'key', 'capabilities']) if (options[name] !== undefined) made[name] = options[name];
  if (options.since !== undefined) made.from = options.since;
  if (options.max_queued !== undefined) made.maxQueued = options.max_queued;
  if (options.send_window !== undefined) made.sendWindow = options.send_window;
  slowStore = options.slow_store === true;
  saveGates = Array.from({ length: options.gated_saves ?? 0 }, (_, n) => gate(`save ${n + 1}`));
  made.store = options.store_directory ? new FileStore(options.store_directory) : loggedStore;
  made.onGap = (gap) => note('gap', gap);
  made.onResync = (resync) => note('resync', { reason: resync.reason, from: resync.from, oldest_cursor: resync.oldestCursor, cursor: resync.cursor });
  session = await connect(made);
  return { session: session.id };
}

async function* perform(turn, program) {
  note('turn', { session: turn.sessionId, turn: turn.turn, attempt: turn.attempt, content: turn.content });
  turn.signal.addEventListener('abort', () => note('stopped', { turn: turn.turn, code: turn.signal.reason.code }));
  for (const step of program) {
    if (step.yield !== undefined) yield step.yield;
    else if (step.emit !== undefined) {
      yield step.emit;
      if (step.spoil) step.emit.data.spoilt = true;
    }
    else if (step.count !== undefined) for (let n = 1; n <= step.count; n += 1) yield `${turn.content}:${n} `;
    else if (step.wait !== undefined) await gate(step.wait).promise;
    else if (step.history !== undefined) note('history', { cursors: (await turn.history(step.history)).events.map((event) => event.cursor) });
    else if (step.throw !== undefined) throw step.plain ? new Error(step.throw) : new TurnFailed(step.throw, { retry: step.retry, retryAfterSeconds: step.retry_after_seconds });
    else if (step.final !== undefined) yield new Final(step.final, step.outcome);
  }
}

async function serve(options) {
  gates = new Map();
  const made = { ...common(options), concurrency: options.concurrency };
  if (options.emit_window !== undefined) made.emitWindow = options.emit_window;
  if (options.extend_every !== undefined) made.extendMs = options.extend_every * 1000;
  if (options.reattach !== undefined) made.reattachMs = options.reattach * 1000;
  server = serveAgent(options.agent, (turn) => perform(turn, options.program), made);
  await server.ready;
  return { worker: server.workerId };
}

const operations = {
  remember: ({ key, state }) => (state === null ? memory.remove(key) : memory.save(key, state)),
  stored: ({ key }) => memory.load(key),
  open: ({ options }) => open(options),
  async send({ content, message_id, metadata, spoil }) {
    const sending = session.send(content, { messageId: message_id, metadata });
    if (spoil) content.spoilt = true;
    const result = await sending;
    return { message_id: result.messageId, cursor: result.cursor, turn: result.turn, duplicate: result.duplicate, aborted: result.aborted };
  },
  async ask({ content, message_id, only, read }) {
    const pieces = [];
    const answer = session.ask(content, { messageId: message_id });
    if (read) await gate(read).promise;
    for await (const piece of answer) if (pieces.push(piece) === only) break;
    const final = await answer.final;
    return { pieces, text: final.text, content: final.content, outcome: final.outcome, cursor: final.cursor };
  },
  async next() {
    const { done, value } = await session.next();
    return done ? { done: true } : { event: value };
  },
  commit: () => session.commit(),
  close: ({ commit }) => session.close({ commit: commit !== false }),
  leave: () => session.leave(),
  abort: ({ turn, reason }) => session.abort({ turn, reason }),
  async history(command) {
    const page = await session.history({ since: command.since, before: command.before, limit: command.limit });
    return { events: page.events, oldest_cursor: page.oldestCursor, cursor: page.cursor };
  },
  ack: ({ cursor }) => session.ack(cursor),
  presence: ({ status, data }) => session.presence(status, data),
  typing: () => session.typing(),
  pending: () => session.pending.map((message) => message.message_id),
  serve: ({ options }) => serve(options),
  block: ({ seconds }) => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, seconds * 1000),
  let: ({ gate: name }) => gate(name).open(),
  publish: ({ session: id, event, data, event_id }) => server.publish(id, event, data, { id: event_id }),
  agent_history: ({ session: id }) => server.history(id),
  stop: ({ now }) => server.stop(now ? { timeoutMs: 0 } : {}),
  closed: () => server.closed,
};

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  Promise.resolve()
    .then(() => operations[command.op](command))
    .then((result) => out({ id: command.id, ok: result ?? null }))
    .catch((error) => out({ id: command.id, error: told(error) }));
}
process.exit(0);
