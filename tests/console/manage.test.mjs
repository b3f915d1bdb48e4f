/** Lists, and acts of an operator beyond one session. */
import assert from 'node:assert/strict';
import { rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { look } from './lib/browser.mjs';
import { AWAY, fixture } from './lib/fixture.mjs';
import { until } from './lib/gateway.mjs';

const mend = join(tmpdir(), `ebbgate-mend.${process.pid}`);
process.env.MEND = mend;
after(() => rm(mend, { force: true }));

const at = fixture();
const rows = (page) => page.locator('tbody tr');
const agree = (page, name) => page.getByRole('dialog').getByRole('button', { name }).click();

test('sessions: search, filters, pages', async () => {
  const ids = [];
  const bob = await at.gate.mint('bob', 'read write');
  for (let i = 0; i < 60; i += 1) ids.push(await at.gate.session('support', i < 5 ? bob : at.gate.token));
  await at.gate.call('POST', `sessions/${ids[0]}/close`, {});
  await at.page('#/sessions', async (page) => {
    await rows(page).nth(49).waitFor();
    const first = await rows(page).locator('a').allInnerTexts();
    await page.getByRole('button', { name: 'Older' }).press('Enter');
    await page.getByText('Page 2, the last').waitFor();
    const second = await rows(page).locator('a').allInnerTexts();
    assert.deepEqual([...first, ...second].sort(), [...ids].sort());
    await page.getByRole('button', { name: 'Newer' }).press('Enter');
    await rows(page).nth(49).waitFor();
    await page.getByLabel('Owner').fill('bob');
    await until('bob’s only', async () => (await rows(page).count()) === 5);
    await page.getByLabel('State').selectOption('closed');
    await until('closed ones', async () => (await rows(page).count()) === 1);
    assert.match(page.url(), /owner=bob&state=closed/);
    await page.reload();
    await until('the filters are in the address', async () => (await rows(page).count()) === 1);
    await page.getByLabel('Search').fill('no such thing');
    await page.getByText('No session is like that').waitFor();
    await page.getByRole('link', { name: 'Show all' }).click();
    await rows(page).nth(49).waitFor();
    assert.equal(await page.getByLabel('Owner').inputValue(), '');
  });
});

test('a list that refreshes leaves the keyboard where it is', async () => {
  for (let i = 0; i < 3; i += 1) await at.gate.session('support');
  await at.page('#/sessions', async (page) => {
    const third = rows(page).nth(2).locator('a');
    await third.focus();
    const id = await third.innerText();
    const before = await page.evaluateHandle(() => document.querySelector('tbody'));
    await look(page);
    await page.waitForFunction((old) => document.querySelector('tbody') !== old && document.querySelector('tbody'), before);
    assert.equal(await page.evaluate(() => document.activeElement.innerText), id);
  });
});

test('a click is not lost to a list that is drawn anew meanwhile', async () => {
  const id = await at.gate.session('support');
  await at.page('#/sessions', async (page) => {
    const row = page.locator(`tr[data-key="${id}"]`);
    const answered = (act) => Promise.all([page.waitForResponse((response) => response.url().includes('/sessions?')), act()]);
    const drawn = () => new Promise((resolve) => setTimeout(resolve, 500)); // longer than any drawing takes
    const press = async () => {
      await row.locator('a').hover();
      await page.mouse.down();
    };
    // A refresh that nobody asked for, and a filter's.
    await press();
    await answered(() => look(page));
    await drawn();
    await page.mouse.up();
    await page.waitForURL((url) => url.hash.startsWith(`#/sessions/${id}`));
    await page.goBack();
    await press();
    await answered(() => page.getByLabel('Search').evaluate((input, text) => {
      input.value = text;
      input.dispatchEvent(new Event('input', { bubbles: true }));
    }, id));
    await drawn();
    await page.mouse.up();
    await page.waitForURL((url) => url.hash.startsWith(`#/sessions/${id}`));
  });
});

test('dead letters: look, and try again', async () => {
  const ids = [];
  for (let i = 0; i < 3; i += 1) {
    ids.push(await at.gate.session('support'));
    await at.gate.say(ids[i], 'fail');
  }
  await until('three are dead', async () => (await at.gate.call('GET', 'turns?state=dead')).turns.length === 3);
  await at.page('#/dead', async (page) => {
    await rows(page).nth(2).getByText('the model is out of reach').waitFor();
    await writeFile(mend, '');
    await page.getByRole('button', { name: `Try turn 1 of session ${ids[1]} again` }).click();
    await page.getByText('Said again as turn').waitFor();
    await until('one less', async () => (await rows(page).count()) === 2);
    const answer = await until('its answer', async () => (await at.gate.events(ids[1])).find((e) => e.content === 'mended'));
    assert.equal(answer.outcome.status, 'ok');
    await page.getByRole('button', { name: 'Try all of these again' }).click();
    await agree(page, 'Try them');
    await page.getByText('No dead letters').waitFor();
    for (const id of ids) await until(`the answer in ${id}`, async () => (await at.gate.events(id)).some((e) => e.content === 'mended'));
    await page.goto(`${at.gate.url}/#/sessions/${ids[0]}`);
    await page.locator('.answer').getByText('mended').waitFor();
  });
});

test('dead letters that somebody else saw to do not keep the others from another try', async () => {
  await rm(mend, { force: true });
  const dead = async () => (await at.gate.call('GET', 'turns?state=dead')).turns;
  const ids = [];
  for (let i = 0; i < 5; i += 1) {
    ids.push(await at.gate.session('support'));
    await at.gate.say(ids[i], 'fail');
  }
  await until('five are dead', async () => (await dead()).length === 5);
  await at.page('#/dead', async (page) => {
    await rows(page).nth(4).waitFor();
    await page.getByRole('button', { name: 'Try all of these again' }).click();
    await writeFile(mend, '');
    const order = (await dead()).map((t) => t.session_id);
    await at.gate.call('POST', `turns/${order[0]}/1/retry`, {});
    await at.gate.call('DELETE', `sessions/${order[1]}`);
    await at.gate.call('POST', `sessions/${order[2]}/close`, {});
    await agree(page, 'Try them');
    await page.getByText('2 of 5 messages said again; 2 no longer here: somebody else saw to it; 1 in a session that is closed').waitFor();
    for (const id of [order[0], ...order.slice(3)]) await until(`the answer in ${id}`, async () => (await at.gate.events(id)).some((e) => e.content === 'mended'));
    await until('they have left the list', async () => (await rows(page).count()) === 1);
  }, { allow: /status of 40[49]/ });
});

test('agents: register, see a worker, forget', async () => {
  await at.page('#/agents', async (page) => {
    const card = (id) => page.getByRole('region', { name: `Agent ${id}` });
    await card('support').getByText('1 worker').waitFor();
    await card('support').getByText('ebbgate-agent').waitFor();
    await page.getByText('Register an agent').click();
    await page.getByLabel('Id').fill('night shift');
    await page.getByRole('button', { name: 'Register' }).click();
    await card('night shift').getByText('no worker').waitFor();
    await card('night shift').getByRole('button', { name: 'Forget' }).click();
    await agree(page, 'Forget it');
    await card('night shift').waitFor({ state: 'detached' });
    assert.deepEqual((await at.gate.call('GET', 'agents')).agents.map((a) => a.id), ['support']);
  });
});

test('connections: filter, and disconnect', async () => {
  await at.gate.agent('other');
  await at.page('#/connections', async (page) => {
    await rows(page).nth(1).waitFor();
    await page.getByRole('textbox', { name: 'Agent' }).fill('other');
    await until('one row', async () => (await rows(page).count()) === 1);
    const { connections: [before] } = await at.gate.call('GET', 'connections?agent=other');
    await page.getByRole('button', { name: 'Disconnect agent-other' }).click();
    await agree(page, 'Disconnect');
    await page.getByText('was told to go').waitFor();
    await until('it is gone', async () => (await at.gate.call('GET', 'connections')).connections.every((c) => c.id !== before.id));
    await page.locator(`tr[data-key="${before.id}"]`).waitFor({ state: 'detached' });
  });
});

test('tokens: make, use, revoke', async () => {
  await at.page('#/access', async (page) => {
    await page.getByLabel('For (sub)').fill('kiosk');
    await page.getByRole('checkbox', { name: 'write' }).uncheck();
    await page.getByRole('textbox', { name: 'Agents' }).fill('support');
    await page.getByLabel('Good for').selectOption('300');
    await page.getByRole('button', { name: 'Make the token' }).click();
    const token = await page.locator('.minted .copy-text').innerText();
    const claims = JSON.parse(Buffer.from(token.split('.')[1], 'base64url'));
    assert.deepEqual([claims.sub, claims.scope, claims.agents, claims.exp - claims.iat], ['kiosk', 'read', ['support'], 300]);
    assert.ok(await page.getByRole('checkbox', { name: 'agent' }).isDisabled());
    await page.getByLabel('Which').fill('kiosk');
    await page.getByRole('button', { name: 'Revoke', exact: true }).click();
    await agree(page, 'Revoke');
    await page.getByRole('cell', { name: 'kiosk' }).waitFor();
    await assert.rejects(at.gate.call('GET', 'v1/sessions/x/events', undefined, `http://${at.gate.public}`, token), /401/);
  });
});

test('keys: rotate, and withdraw the old one', async () => {
  const second = await at.gate.mint('other-operator', 'admin');
  await at.page('#/access', async (page) => {
    const keys = page.getByRole('region', { name: 'Signing keys' });
    const [old] = (await at.gate.call('GET', 'keys')).keys;
    await keys.getByRole('button', { name: 'Rotate' }).click();
    await agree(page, 'Make a new key');
    await keys.getByText('verifies only').waitFor();
    await at.gate.call('GET', 'stats', undefined, undefined, second);
    at.gate.token = await at.gate.mint('operator', 'admin read write');
    await page.goto(`${at.gate.url}/#token=${at.gate.token}`);
    await page.getByRole('heading', { level: 1, name: 'Overview' }).waitFor();
    await page.goto(`${at.gate.url}/#/access`);
    await keys.getByRole('button', { name: `Withdraw key ${old.kid}` }).click();
    await agree(page, 'Withdraw');
    await keys.getByText('1 key.').waitFor();
    await assert.rejects(at.gate.call('GET', 'stats', undefined, undefined, second), /401/);
  });
});

test('maintenance: back up, checkpoint, drain', async () => {
  const to = join(at.gate.folder, 'copy.db');
  await at.page('#/overview', async (page) => {
    await page.getByText('Maintenance').click();
    await page.getByText('No backup since the start').waitFor();
    const path = page.getByLabel('Copy the database to');
    await path.fill(to);
    await path.press('Enter');
    await page.getByText('The last backup went well').waitFor();
    assert.ok((await stat(to)).size > 0);
    await path.press('Enter');
    await page.getByRole('alert').getByText('Conflict').or(page.getByRole('alert').getByText('exist')).first().waitFor();
    await page.getByRole('button', { name: 'Checkpoint' }).click();
    await page.getByText('the write-ahead log holds').waitFor();
    await page.getByRole('button', { name: 'Drain' }).click();
    await agree(page, 'Drain it');
    await page.getByText('is draining').waitFor();
    await until('it has ended', () => at.gate.daemon.exitCode !== null);
    assert.equal(at.gate.daemon.exitCode, 0);
    await at.gate.serve();
  }, { allow: new RegExp(`${AWAY.source}|status of (4|503)`) });
});

test('the audit log tells who did it', async () => {
  await at.gate.call('PUT', 'agents/audited', {});
  await at.page('#/audit', async (page) => {
    const row = rows(page).filter({ hasText: 'agents/audited' });
    await row.getByText('agent.put').waitFor();
    await row.getByText('operator', { exact: true }).waitFor();
    await row.getByText('127.0.0.1').waitFor();
  });
});

test('the overview lives, and says when the gateway is away', async () => {
  await at.page('#/overview', async (page) => {
    const events = page.locator('.chart').filter({ hasText: 'Events' });
    await until('two moments are drawn', async () => (await events.locator('path.line').getAttribute('d'))?.includes('L'));
    const id = await at.gate.session('support');
    const stored = () => page.getByText(/since the start, /).innerText().then((text) => Number(text.split(' ')[0].replaceAll(',', '')));
    const before = await stored();
    for (let i = 0; i < 7; i += 1) await at.gate.say(id, `line ${i}`);
    await until('more events', async () => (await stored()) >= before + 7);
    await events.locator('.chart-plot').focus();
    await page.keyboard.press('ArrowLeft');
    assert.match(await events.locator('.chart-now').innerText(), /\d\d:\d\d:\d\d/);
    await page.getByText('Settings in force').click();
    await page.getByText('max_payload', { exact: true }).waitFor();
    await at.gate.kill();
    await page.getByRole('alert').getByText('The gateway does not answer').waitFor();
    await page.getByText('No answer').waitFor();
    await at.gate.serve();
    await page.getByText('Serving').waitFor();
    await page.getByRole('alert').waitFor({ state: 'detached' });
  }, { allow: AWAY });
});
