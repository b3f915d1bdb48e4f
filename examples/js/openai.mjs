// An agent in front of any OpenAI-compatible HTTP endpoint (OpenAI, vLLM, llama.cpp, Ollama, …): the
// session's log is the memory, tokens stream through, an abort stops the request at the endpoint.
//
//   OPENAI_BASE_URL=http://127.0.0.1:11434/v1 OPENAI_MODEL=llama3.2 \
//   EBBGATE_TOKEN=$(ebbgate token --sub llm-worker --scope agent --agents assistant) node openai.mjs
import { serveAgent, TurnFailed } from '../../clients/js/src/index.js'; // installed: '@ebbgate/client'

const base = process.env.OPENAI_BASE_URL ?? 'https://api.openai.com/v1';
const model = process.env.OPENAI_MODEL ?? 'gpt-4o-mini';
const system = process.env.OPENAI_SYSTEM ?? 'You are a helpful assistant.';
const key = process.env.OPENAI_API_KEY;

const text = (content) => (typeof content === 'string' ? content : JSON.stringify(content));

/** What was said in this session, as the endpoint wants it: from the log, up to and with this message. */
async function conversation(turn) {
  const messages = [];
  for (let since = Math.max(0, turn.turn - 2000); since < turn.turn; ) {
    const { events } = await turn.history({ since, limit: 500 });
    if (events.length === 0) break;
    for (const event of events) {
      if (event.cursor > turn.turn) break;
      if (event.type === 'message') messages.push({ role: 'user', content: text(event.data.content) });
      if (event.type === 'response' && event.outcome?.status === 'ok') messages.push({ role: 'assistant', content: text(event.content) });
    }
    since = events.at(-1).cursor;
  }
  return [{ role: 'system', content: system }, ...messages];
}

/** The `data:` lines of an event stream, whole, however the network cut them. */
async function* lines(body) {
  let rest = '';
  for await (const part of body.pipeThrough(new TextDecoderStream())) {
    const whole = (rest + part).split(/\r?\n/);
    rest = whole.pop();
    for (const line of whole) if (line.startsWith('data:')) yield line.slice(5).trim();
  }
}

async function* assistant(turn) {
  const answer = await fetch(`${base}/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...(key && { authorization: `Bearer ${key}` }) },
    body: JSON.stringify({ model, stream: true, messages: await conversation(turn) }),
    signal: turn.signal,
  });
  if (!answer.ok) {
    const later = answer.status === 429 || answer.status >= 500;
    const wait = Number(answer.headers.get('retry-after'));
    throw new TurnFailed(`the endpoint answered ${answer.status}`, { retry: later, retryAfterSeconds: wait || undefined });
  }
  for await (const line of lines(answer.body)) {
    if (line === '[DONE]') return;
    const piece = JSON.parse(line).choices?.[0]?.delta?.content;
    if (piece) yield piece;
  }
}

const server = serveAgent(process.env.EBBGATE_AGENT ?? 'assistant', assistant, {
  url: process.env.EBBGATE_URL ?? 'ws://127.0.0.1:7070/ws',
  token: process.env.EBBGATE_TOKEN,
  concurrency: 16,
  onError: (error) => console.error(`assistant: ${error.message}`),
  onStatus: ({ state }) => console.error(`assistant: ${state}`),
});
for (const name of ['SIGINT', 'SIGTERM']) process.once(name, () => server.stop());
await server.closed;
