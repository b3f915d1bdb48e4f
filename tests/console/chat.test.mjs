/** The chat page: a client like any other, with its connection on view. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AWAY, fixture } from './lib/fixture.mjs';
import { until } from './lib/gateway.mjs';

const at = fixture();
const answers = (page) => page.locator('.turn .answer');

async function begin(page) {
  await page.getByLabel('Agent').fill('support');
  await page.getByRole('button', { name: 'Talk' }).click();
  await page.locator('.tail').getByText('connected').waitFor();
  return new URLSearchParams(new URL(page.url()).hash.split('?')[1]).get('session');
}

async function say(page, text) {
  await page.getByLabel('Say something').fill(text);
  await page.getByLabel('Say something').press('Enter');
}

test('talk, stop an answer, come back after a reload', async () => {
  await at.page('#/chat', async (page) => {
    const id = await begin(page);
    await say(page, 'echo hello from here');
    await answers(page).nth(0).getByText('hello from here').waitFor();
    await say(page, 'tick');
    await answers(page).nth(1).getByText('piece 5.').waitFor();
    await page.getByRole('button', { name: 'Stop' }).click();
    await page.locator('.turn').nth(1).locator('.outcome').getByText('aborted').waitFor();
    assert.equal((await at.gate.call('GET', `sessions/${id}`)).owner, 'operator');
    await page.reload();
    await answers(page).nth(0).getByText('hello from here').waitFor();
    await page.locator('.turn').nth(1).locator('.outcome').getByText('aborted').waitFor();
    assert.equal(await page.locator('.turn').count(), 2);
    await page.locator('.story-box summary').click();
    await page.getByText(/Resumed after event 0: \d+ events caught up with/).waitFor();
  });
});

test('the conversation goes on when the gateway is killed and comes back', async () => {
  await at.page('#/chat', async (page) => {
    const id = await begin(page);
    await say(page, 'echo before');
    await answers(page).nth(0).getByText('before').waitFor();
    await at.gate.kill();
    await page.locator('.tail').getByText('no connection').waitFor();
    await say(page, 'echo while it was away');
    await page.getByText('not stored yet').waitFor();
    await at.gate.serve();
    await page.locator('.tail').getByText('connected again').waitFor();
    await answers(page).nth(1).getByText('while it was away').waitFor();
    await until('nothing is pending', async () => (await page.locator('.pending li').count()) === 0);
    await page.locator('.story-box summary').click();
    await page.getByText(/^\S+ Lost: /).first().waitFor();
    const messages = (await at.gate.events(id)).filter((e) => e.type === 'message').map((e) => e.data.content);
    assert.deepEqual(messages, ['echo before', 'echo while it was away']);
    assert.equal(await page.locator('.turn').count(), 2);
  }, { allow: AWAY });
});

test('what is said without a connection in a new conversation outlives the page', async () => {
  await at.page('#/chat', async (page) => {
    const sockets = [];
    let cut = false;
    await page.routeWebSocket(/\/ws$/, (socket) => {
      sockets.push(socket);
      if (cut) socket.close({ code: 1012 });
      else socket.connectToServer();
    });
    const id = await begin(page);
    cut = true;
    await Promise.all(sockets.map((socket) => socket.close({ code: 1012 })));
    await page.locator('.tail').getByText('no connection').waitFor();
    await say(page, 'echo kept');
    await page.getByText('not stored yet').waitFor();
    await page.reload({ waitUntil: 'commit' });
    cut = false;
    await answers(page).nth(0).getByText('kept').waitFor();
    const messages = (await at.gate.events(id)).filter((e) => e.type === 'message').map((e) => e.data.content);
    assert.deepEqual(messages, ['echo kept']);
  });
});

test('what is missed while away is caught up with, on view', async () => {
  await at.page('#/chat', async (page) => {
    const id = await begin(page);
    await say(page, 'echo one');
    await answers(page).nth(0).getByText('one').waitFor();
    const { connections } = await at.gate.call('GET', `sessions/${id}`);
    await page.context().setOffline(true);
    for (const c of connections) await at.gate.call('DELETE', `connections/${c.id}`).catch(() => {});
    await page.locator('.tail').getByText('no connection').waitFor();
    await at.gate.say(id, 'echo two');
    await at.gate.settled(id);
    await page.context().setOffline(false);
    await answers(page).nth(1).getByText('two').waitFor();
    await page.locator('.story-box summary').click();
    await page.getByText(/Resumed after event \d+: \d+ events caught up with/).waitFor();
    const { cursor } = await at.gate.call('GET', `sessions/${id}`);
    assert.equal((await page.getByText(/Resumed after/).first().textContent()).match(/after event (\d+): (\d+)/).slice(1).map(Number).reduce((a, b) => a + b), cursor);
  }, { allow: /ERR_INTERNET_DISCONNECTED|WebSocket connection to/ });
});

test('an agent that is not known is refused in words', async () => {
  await at.page('#/chat', async (page) => {
    await page.getByLabel('Agent').fill('nobody');
    await page.getByRole('button', { name: 'Talk' }).click();
    await page.getByText('The gateway refuses').waitFor();
    await page.getByRole('button', { name: 'Try again' }).waitFor();
  });
});

test('one talks until the own token ends, whatever this browser’s clock says', async () => {
  const { token } = await at.gate.call('POST', 'tokens', { sub: 'operator', scope: 'admin read write', ttl: 300 });
  await at.page('#/overview', async (page) => {
    await page.addInitScript(() => {
      const { now } = Date;
      Date.now = () => now() - 5 * 3600 * 1000;
    });
    await page.goto(`${at.gate.url}/#token=${token}`);
    await page.reload();
    await page.goto(`${at.gate.url}/#/chat`);
    await begin(page);
    await say(page, 'echo hello');
    await answers(page).nth(0).getByText('hello').waitFor();
  }, { allow: /status of 403/ });
});

test('the token is for the conversation only', async () => {
  await at.page('#/chat', async (page) => {
    await begin(page);
    const { entries } = await at.gate.call('GET', 'audit?limit=1');
    assert.match(entries[0].detail, /sub=operator .*scope=read write/);
    const [hello] = (await at.gate.call('GET', 'connections?sub=operator')).connections;
    assert.equal(hello.client.name, 'ebbgate-console');
  });
});
