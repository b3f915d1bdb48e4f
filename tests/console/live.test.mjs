/** One session: found, followed live, and acted on. */
import assert from 'node:assert/strict';
import { writeFile, rm, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { look } from './lib/browser.mjs';
import { AWAY, fixture } from './lib/fixture.mjs';
import { until } from './lib/gateway.mjs';

const hold = join(tmpdir(), `ebbgate-hold.${process.pid}`);
process.env.HOLD = hold;
after(() => rm(hold, { force: true }));

const at = fixture();
const turn = (page, n) => page.locator(`[data-turn="${n}"]`);
const ending = (page, n) => turn(page, n).locator('.outcome');

/** That the raw view has each event of the log once. */
async function showsEachEvent(page, id) {
  await page.getByRole('button', { name: 'Raw events' }).click();
  const { length } = await at.gate.events(id);
  await page.locator('details.event').nth(length - 1).waitFor();
  assert.equal(await page.locator('details.event').count(), length);
}

test('find a session, watch its answer stream in, and abort it', async () => {
  const alice = await at.gate.mint('alice', 'read write');
  const id = await at.gate.session('support', alice);
  await at.gate.session('support');
  await at.page('#/sessions', async (page) => {
    await page.getByLabel('Search').fill(id.slice(9, 30));
    await page.getByRole('link', { name: id }).click();
    await page.getByText('Nothing was said yet').waitFor();
    await page.locator('.tail').getByText('live').waitFor();
    await at.gate.say(id, 'tick', alice);
    const answer = turn(page, 1).locator('.answer');
    await answer.getByText('piece 3.').waitFor();
    await answer.getByText('piece 12.').waitFor();
    await page.getByText('attempt 1').waitFor();
    await page.getByRole('button', { name: 'Abort turn' }).click();
    await page.getByText('Turn 1 is asked to stop').waitFor();
    await ending(page, 1).getByText('aborted').waitFor();
    await turn(page, 1).getByText('Abort asked for by').waitFor();
    // What one reads is what is stored, once and in order.
    const stored = (await at.gate.events(id)).filter((e) => e.type === 'token_stream').map((e) => e.data.content).join('');
    assert.equal((await answer.locator('.prose').allTextContents()).join(''), stored);
    await page.getByText('None: every message was answered.').waitFor();
  });
});

test('say something, and fork what was said', async () => {
  const id = await at.gate.session('support');
  await at.page(`#/sessions/${id}`, async (page) => {
    const box = page.getByLabel('Say something as the operator');
    await box.fill('echo one two three');
    await box.press('Enter');
    await ending(page, 1).getByText('answered').waitFor();
    assert.equal(await box.inputValue(), '');
    assert.match(await turn(page, 1).locator('.said').innerText(), /operator/);
    const [message] = await at.gate.events(id);
    assert.equal(message.source, 'operator:operator');
    await box.fill('echo four');
    await page.getByRole('button', { name: 'Say', exact: true }).click();
    await turn(page, 6).locator('.answer').getByText('four').waitFor();
    await page.getByRole('button', { name: 'Fork after turn 1' }).click();
    await page.waitForURL((url) => url.hash.startsWith('#/sessions/') && !url.hash.includes(id));
    await turn(page, 1).locator('.answer').getByText('one two three').waitFor();
    assert.equal(await turn(page, 6).count(), 0);
    const forked = decodeURIComponent(new URL(page.url()).hash.split('/')[2]);
    assert.equal((await at.gate.events(forked)).length, 5);
    await page.getByRole('button', { name: 'Fork', exact: true }).click();
    await page.getByLabel('After event').fill('1');
    await page.getByRole('dialog').getByRole('button', { name: 'Fork' }).click();
    await page.waitForURL((url) => !url.hash.includes(forked));
    await turn(page, 1).getByText('echo one two three').waitFor();
    assert.equal(await turn(page, 1).locator('.answer').innerText(), '');
  });
});

test('a fork begins no earlier than what retention left', async () => {
  const id = await at.gate.session('support');
  await at.gate.say(id, 'echo one two three');
  await at.gate.settled(id);
  await at.page('#/sessions', async (page) => {
    await page.route(`**/api/v1/sessions/${id}`, async (route) => {
      const response = await route.fetch();
      await route.fulfill({ response, json: { ...(await response.json()), oldest_cursor: 3 } });
    });
    await page.goto(`${at.gate.url}/#/sessions/${id}`);
    await page.getByRole('button', { name: 'Fork', exact: true }).click();
    await page.getByRole('dialog').getByText('(2 to 5)').waitFor();
    assert.equal(await page.getByLabel('After event').getAttribute('min'), '2');
  });
});

test('tools, reasoning, and an answer that is not what was streamed', async () => {
  const id = await at.gate.session('support');
  await at.gate.say(id, 'tools');
  await at.gate.say(id, 'differ');
  await at.gate.settled(id);
  await at.page(`#/sessions/${id}`, async (page) => {
    await page.getByText('Looking it up').waitFor();
    await page.getByText('lookup_order').first().click();
    await page.getByText('"carrier": "post"').waitFor();
    assert.ok(await page.getByText('I look at the shop first').isHidden());
    await page.getByText('Reasoning').click();
    await page.getByText('The question is about the order. I look at the shop first.').waitFor();
    await page.getByText('the final words').waitFor();
    assert.ok(await page.getByText('a first draft').isHidden());
    await page.getByText('What was streamed before').click();
    await page.getByText('a first draft').waitFor();
  });
});

test('raw events, by type, and the export', async () => {
  const id = await at.gate.session('support');
  await at.gate.say(id, 'tools');
  await at.gate.settled(id);
  const stored = await at.gate.events(id);
  await at.page(`#/sessions/${id}`, async (page) => {
    await page.getByRole('button', { name: 'Raw events' }).click();
    await page.locator('details.event').nth(stored.length - 1).waitFor();
    await page.getByLabel('Types').selectOption('tool_call_stream');
    assert.equal(await page.locator('details.event').count(), 1);
    await page.locator('details.event summary').click();
    const shown = JSON.parse(await page.locator('details.event .code').innerText());
    assert.deepEqual(shown, stored.find((e) => e.type === 'tool_call_stream'));
    assert.match(page.url(), /view=raw/);
    await page.reload();
    await page.locator('details.event').first().waitFor();
    const [file] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: 'Export' }).click()]);
    const lines = (await readFile(await file.path(), 'utf8')).trim().split('\n').map((line) => JSON.parse(line));
    assert.deepEqual(lines, stored);
  });
});

test('earlier events are loaded on demand, and join what is there', async () => {
  const id = await at.gate.session('support');
  const words = Array.from({ length: 420 }, (_, i) => `w${i}`).join(' ');
  await at.gate.say(id, `echo ${words}`);
  await at.gate.settled(id);
  await at.page(`#/sessions/${id}`, async (page) => {
    await ending(page, 1).getByText('answered').waitFor();
    await page.getByText('its message is further up').waitFor();
    await page.getByRole('button', { name: 'Load earlier events' }).click();
    await turn(page, 1).locator('.said').getByText('echo w0 w1').waitFor();
    assert.ok(await page.getByRole('button', { name: 'Load earlier events' }).isHidden());
    await until('the text is whole', async () => (await turn(page, 1).locator('.answer').innerText()).trim() === words);
  });
});

test('raw events: all that is loaded can be reached, and a choice is not changed under the hands', async () => {
  const id = await at.gate.session('support');
  await at.gate.say(id, `echo ${Array.from({ length: 700 }, (_, i) => `w${i}`).join(' ')}`);
  await at.gate.settled(id);
  await at.page(`#/sessions/${id}?view=raw`, async (page) => {
    const cursors = () => page.locator('details.event summary > :first-child').allInnerTexts().then((all) => all.map((text) => Number(text.replace(',', ''))));
    const span = async (first, last) => until(`${first} to ${last}`, async () => {
      const all = await cursors();
      return all[0] === first && all.at(-1) === last && all.every((n, i) => n === first + i);
    });
    const more = page.getByRole('button', { name: 'Load earlier events' });
    await span(403, 702);
    await more.click();
    await span(103, 602);
    await more.click();
    await span(1, 500);
    await more.waitFor({ state: 'hidden' });
    await page.getByText('1 to 500 of 702 loaded').waitFor();
    // What comes meanwhile waits at the end.
    await at.gate.say(id, 'echo more');
    await at.gate.settled(id);
    await page.getByText('1 to 500 of 705 loaded').waitFor();
    await page.getByRole('button', { name: 'Later ones' }).click();
    await span(206, 705);
    const pick = page.getByLabel('Types');
    await pick.focus();
    const option = await page.evaluateHandle(() => document.querySelector('.raw-head option'));
    await at.gate.say(id, 'echo again');
    await at.gate.settled(id);
    await span(209, 708);
    assert.ok(await option.evaluate((node) => node.isConnected));
    await pick.selectOption('message');
    await until('three messages', async () => (await cursors()).length === 3);
    await pick.selectOption('');
    await page.getByRole('button', { name: 'Earlier ones' }).click();
    await span(1, 500);
  });
});

test('the tail comes back after the gateway was killed, without a gap', async () => {
  const id = await at.gate.session('support');
  await at.page(`#/sessions/${id}`, async (page) => {
    await at.gate.say(id, 'hold before ');
    await turn(page, 1).locator('.answer').getByText('before').waitFor();
    await at.gate.kill();
    await page.locator('.tail').getByText('lost').waitFor();
    await at.gate.serve();
    await page.locator('.tail').getByText('live').waitFor();
    await writeFile(hold, '');
    await ending(page, 1).getByText('answered').waitFor();
    await rm(hold);
    await showsEachEvent(page, id);
  }, { allow: AWAY });
});

/** Runs `act(page, id)` on the page of a session that shows one answer, live. */
async function withOldWords(act) {
  const id = await at.gate.session('support');
  await at.gate.say(id, 'echo old words');
  await at.gate.settled(id);
  await at.page(`#/sessions/${id}`, async (page) => {
    await turn(page, 1).locator('.answer').getByText('old words').waitFor();
    await page.locator('.tail').getByText('live').waitFor();
    await act(page, id);
  }, { allow: AWAY });
}

const refuse = (route) => route.abort('connectionrefused');

/** Its id stands for another log from now on, which is longer. */
async function beginAnew(id) {
  await at.gate.call('DELETE', `sessions/${id}`);
  await at.gate.call('POST', 'v1/sessions', { agent_id: 'support', session_id: id }, `http://${at.gate.public}`);
  for (const text of ['echo new words', 'echo more of them']) {
    await at.gate.say(id, text);
    await at.gate.settled(id);
  }
}

/** That the page shows the log as it is now, and says so. */
async function showsAnother(page, id) {
  await page.getByText('This is another log').waitFor();
  await ending(page, 5).getByText('answered').waitFor();
  await turn(page, 1).locator('.answer').getByText('new words').waitFor();
  assert.equal(await page.getByText('old words').count(), 0);
  await page.locator('.tail').getByText('live').waitFor();
  await at.gate.say(id, 'echo and on');
  await at.gate.settled(id);
  await showsEachEvent(page, id);
}

test('a session that is deleted and begun anew while the page is away is another log', async () => {
  await withOldWords(async (page, id) => {
    await page.route(/sessions\//, refuse);
    await at.gate.kill();
    await at.gate.serve();
    await beginAnew(id);
    await page.unroute(/sessions\//, refuse);
    await showsAnother(page, id);
  });
});

test('a session that is begun anew before the page learns that it was deleted is another log', async () => {
  await withOldWords(async (page, id) => {
    await page.route((url) => url.pathname.endsWith(id), refuse);
    await beginAnew(id);
    await page.locator('.tail').getByText('ended').waitFor();
    await page.unrouteAll();
    await look(page);
    await showsAnother(page, id);
  });
});

test('a session that is closed while its events are loaded has ended, and is not asked for again', async () => {
  const id = await at.gate.session('support');
  await at.gate.say(id, 'echo hello');
  await at.gate.settled(id);
  await at.page('#/sessions', async (page) => {
    let streams = 0;
    await page.route(/\/events\?/, async (route) => {
      if (route.request().url().includes('order=desc')) await at.gate.call('POST', `sessions/${id}/close`, {}).catch(() => {});
      else streams += 1;
      await route.continue();
    });
    await page.goto(`${at.gate.url}/#/sessions/${id}`);
    await page.locator('.tail').getByText('ended').waitFor();
    assert.equal(streams, 1);
  });
});

test('a session that somebody else closes or deletes says so, asks for nothing, and keeps what was typed', async () => {
  const id = await at.gate.session('support');
  await at.gate.say(id, 'echo hello');
  await at.gate.settled(id);
  await at.page(`#/sessions/${id}`, async (page) => {
    const asked = [];
    page.on('request', (request) => asked.push(new URL(request.url()).pathname));
    const box = page.getByLabel('Say something as the operator');
    await box.fill('half a word');
    await page.locator('.tail').getByText('live').waitFor();
    await at.gate.call('POST', `sessions/${id}/close`, {});
    await look(page);
    await page.getByText('The session is closed: this was not said').waitFor();
    assert.equal(await box.inputValue(), 'half a word');
    await box.press('Enter');
    await at.gate.call('DELETE', `sessions/${id}`);
    await look(page);
    await page.getByText('This session was deleted').waitFor();
    await page.locator('.session-line').getByText('deleted').waitFor();
    assert.equal(await box.inputValue(), 'half a word');
    assert.ok(await page.getByRole('button', { name: 'Delete' }).isHidden());
    await page.locator('.answer').getByText('hello').waitFor();
    asked.length = 0;
    await look(page);
    await page.evaluate(() => fetch('/ready'));
    assert.ok(asked.includes('/ready'));
    assert.deepEqual(asked.filter((path) => path.includes(id)), []);
  }, { allow: /status of 404/ });
});

test('what stands beside a session is drawn anew around the button that was pressed', async () => {
  const id = await at.gate.session('support');
  await at.page(`#/chat?agent=support&session=${id}`, async (other) => {
    await other.locator('.tail').getByText('connected').waitFor();
    await at.page(`#/sessions/${id}`, async (page) => {
      const { connections } = await at.gate.call('GET', `sessions/${id}`);
      const row = page.locator(`.side-stack [data-key="${connections.find((c) => c.mode === 'ws').id}"]`);
      await row.getByRole('button', { name: 'Disconnect' }).click();
      await row.waitFor({ state: 'detached' });
      // It comes back by itself, as another connection: the keyboard's place outlives that.
      const again = page.locator('.side-stack li').filter({ hasText: 'ebbgate-console' }).getByRole('button', { name: 'Disconnect' });
      await again.focus();
      const before = await page.evaluateHandle(() => document.activeElement);
      await at.gate.say(id, 'echo news');
      await page.waitForFunction((old) => document.activeElement !== old && document.activeElement.matches('.side-stack button'), before);
    });
  });
});

test('close, then delete', async () => {
  const id = await at.gate.session('support');
  await at.gate.say(id, 'echo hello');
  await at.gate.settled(id);
  await at.page(`#/sessions/${id}`, async (page) => {
    await page.getByRole('button', { name: 'Close' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Keep it as it is' }).click();
    assert.equal((await at.gate.call('GET', `sessions/${id}`)).state, 'open');
    await page.getByRole('button', { name: 'Close' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Close it' }).click();
    await page.getByText('The session ended').waitFor();
    await page.locator('.tail').getByText('ended').waitFor();
    assert.ok(await page.getByLabel('Say something as the operator').isHidden());
    await page.getByRole('button', { name: 'Delete' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Delete it' }).click();
    await page.waitForURL(/#\/sessions$/);
    await page.goto(`${at.gate.url}/#/sessions/${id}`);
    await page.getByText('There is no such session').waitFor();
  }, { allow: /status of 404/ });
});
