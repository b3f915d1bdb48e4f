/**
 * Client and agent library for the Ebbgate gateway.
 *
 *   const session = await connect({ url: 'ws://127.0.0.1:8420', agent: 'echo', token });
 *   for await (const piece of session.ask('hello')) console.log(piece);
 */
export { connect, Session } from './session.js';
export { serveAgent, AgentServer, Final, TurnFailed } from './worker.js';
export { MemoryStore, LocalStorageStore } from './stores.js';
export { Answer, Turns, textOf } from './text.js';
export { EbbgateError, judge } from './errors.js';
export { Backoff } from './backoff.js';
export { VERSION } from './link.js';
