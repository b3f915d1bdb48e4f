// The smallest agent: it says back what it hears, word by word.
//
//   EBBGATE_TOKEN=$(ebbgate token --sub echo-worker --scope agent --agents echo) node echo.mjs
import { serveAgent } from '../../clients/js/src/index.js'; // installed: '@ebbgate/client'

const server = serveAgent(
  'echo',
  async function* (turn) {
    for (const word of String(turn.content).split(/(?<=\s)/)) yield word;
  },
  {
    url: process.env.EBBGATE_URL ?? 'ws://127.0.0.1:7070/ws',
    token: process.env.EBBGATE_TOKEN,
    onStatus: ({ state, error }) => console.error(`echo: ${state}${error ? ` (${error.message})` : ''}`),
  },
);
for (const name of ['SIGINT', 'SIGTERM']) process.once(name, () => server.stop());
await server.closed;
