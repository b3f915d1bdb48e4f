/** A gateway and a browser for the tests of one file; every page must end without faults. */
import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { enter, launch, open } from './browser.mjs';
import { Gateway } from './gateway.mjs';

/** What a browser says while the gateway is away. */
export const AWAY = /ERR_CONNECTION_(REFUSED|RESET)|ERR_EMPTY_RESPONSE|ERR_INCOMPLETE_CHUNKED|ERR_CONTENT_LENGTH_MISMATCH|ERR_SOCKET_NOT_CONNECTED|WebSocket connection to/;

/** `more(at)` runs after the start. */
export function fixture(agents = ['support'], args = [], more = async () => {}) {
  const at = { gate: null, browser: null };
  before(async () => {
    at.gate = await Gateway.start(args);
    at.browser = await launch();
    for (const id of agents) at[id] = await at.gate.agent(id);
    await more(at);
  });
  after(async () => {
    await at.browser?.close();
    await at.gate?.stop();
  });

  /** Runs `body(page)` on a page that is signed in, at `hash`. `allow`: faults that may be. */
  at.page = async (hash, body, { allow, ...options } = {}) => {
    const page = await open(at.browser, options);
    try {
      await enter(page, at.gate, hash);
      await body(page);
      assert.deepEqual(page.faults.filter((fault) => !allow?.test(fault)), []);
    } catch (error) {
      if (process.env.SCREENS) await page.screenshot({ path: `${process.env.SCREENS}/failed-${Date.now()}.png` }).catch(() => {});
      throw new Error(`on ${page.url()}, faults: ${JSON.stringify(page.faults)}`, { cause: error });
    } finally {
      await page.context().close();
    }
  };
  return at;
}
