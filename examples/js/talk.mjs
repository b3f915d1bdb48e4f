// Says one thing to an agent and prints the answer as it comes. The conversation is kept in a file, so the
// next call goes on with it, and a message that was cut off is made good by the next call.
//
//   EBBGATE_TOKEN=$(ebbgate token --sub me) node talk.mjs echo "hello there"
import { connect } from '../../clients/js/src/index.js'; // installed: '@ebbgate/client'
import { FileStore } from '../../clients/js/src/node.js'; // installed: '@ebbgate/client/node'

const [agent, ...words] = process.argv.slice(2);
if (!agent || words.length === 0) {
  console.error('usage: node talk.mjs AGENT WORDS…');
  process.exit(64);
}
const session = await connect({
  url: process.env.EBBGATE_URL ?? 'ws://127.0.0.1:7070/ws',
  token: process.env.EBBGATE_TOKEN,
  agent,
  store: new FileStore(process.env.EBBGATE_STATE ?? '.ebbgate-talk'),
  onStatus: ({ state, delayMs }) => state === 'waiting' && console.error(`(no gateway; next try in ${Math.round(delayMs)} ms)`),
});
for await (const piece of session.ask(words.join(' '))) process.stdout.write(piece);
process.stdout.write('\n');
await session.close();
