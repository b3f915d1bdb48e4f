// Compiled, never run: the types as people use them (npm run types).
import { connect, serveAgent, Final, LocalStorageStore, Turns, TurnFailed, type SessionEvent } from '@ebbgate/client';
import { FileStore } from '@ebbgate/client/node';

async function client(): Promise<void> {
  const session = await connect({
    url: 'wss://example.org',
    agent: 'support',
    token: async ({ reason }) => (reason === 'refused' ? 'new' : 'old'),
    store: new LocalStorageStore(),
    onGap: ({ expected, next }) => console.log(next - expected),
    onStatus: (status) => status.state === 'waiting' && console.log(status.delayMs),
  });
  const { cursor } = await session.send({ text: 'hi' }, { metadata: { k: 1 } });
  console.log(cursor);
  for await (const piece of session.ask('hi')) console.log(piece.length);
  const turns = new Turns();
  for await (const event of session) {
    const known: SessionEvent = event;
    console.log(turns.apply(known)?.text);
  }
  // @ts-expect-error a message needs content
  await session.send(undefined);
  // @ts-expect-error an agent is needed
  await connect({ url: '/ws' });
}

const server = serveAgent(
  'echo',
  async function* (turn) {
    yield turn.content;
    yield { event: 'x.step', data: { n: 1 }, ephemeral: true };
    if (turn.signal.aborted) throw new TurnFailed('stopped', { retry: false });
    yield new Final('done', { status: 'ok' });
  },
  { url: 'ws://127.0.0.1:8420', concurrency: 4 },
);
serveAgent('plain', async () => 'text', { url: 'ws://127.0.0.1:8420' });
void server.ready.then(() => new FileStore('state')).then(client);
