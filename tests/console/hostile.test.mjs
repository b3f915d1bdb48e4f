/** What strangers write shows as text, changes nothing else on the page, and does not stop it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fixture } from './lib/fixture.mjs';
import { until } from './lib/gateway.mjs';

const at = fixture(['support'], ['--max-payload', '4194304']);

const MARKUP = '<script>window.pwned = 1</script><img src=x onerror="window.pwned = 1"><svg onload=window.pwned=1><a href="javascript:window.pwned=1">link</a>'
  + '<style>body{display:none}</style><iframe srcdoc="<script>parent.pwned=1</script>"></iframe></textarea></script>{{7*7}}${7*7}';
const BIDI = 'paid \u202e0001 \u2066 reversed \u202d and \u200f back \u2069';
const LONG = 'x'.repeat(1024 * 1024);
const NAME = 'eve\u202e<b>"\'&amp;\u0000'.replace('\u0000', '\u2028');

const untouched = async (page) => {
  assert.equal(await page.evaluate(() => window.pwned), undefined);
  assert.equal(await page.locator('main script, main img:not([alt=""]), main iframe, main style, main svg[onload], main b').count(), 0);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(wide <= 0, `${wide} px too wide`);
};

test('markup, reordering text and long lines in a session', async () => {
  const eve = await at.gate.mint(NAME, 'read write');
  const id = await at.gate.session('support', eve);
  for (const text of [MARKUP, BIDI, LONG]) await at.gate.say(id, `echo ${text}`, eve);
  await at.gate.say(id, { [MARKUP]: BIDI, list: [MARKUP, LONG.slice(0, 1000)] }, eve);
  await at.gate.say(id, `emit ${JSON.stringify(`${MARKUP}\n${BIDI}`)}`, eve);
  await at.gate.settled(id);
  await at.page(`#/sessions/${id}`, async (page) => {
    const turn = (n) => page.locator('.turn').nth(n);
    await turn(4).locator('.outcome').getByText('answered').waitFor();
    await until('the earlier ones are here', async () => {
      const more = page.getByRole('button', { name: 'Load earlier events' });
      if (await more.isHidden()) return true;
      await more.click();
      return false;
    });
    assert.equal(await turn(0).locator('.said .prose').innerText(), `echo ${MARKUP}`);
    assert.ok((await turn(0).locator('.answer').innerText()).includes(MARKUP));
    assert.equal(await turn(1).locator('.said .prose').textContent(), `echo ${BIDI}`);
    // A name shows what reorders it, and its header keeps its order.
    assert.ok((await turn(0).locator('.said header').innerText()).includes('eve‹U+202E›<b>"\'&amp;‹U+2028›'));
    const [who, time] = [await turn(1).locator('.who-said').boundingBox(), await turn(1).locator('.said time').boundingBox()];
    assert.ok(who.x < time.x);
    // A megabyte is cut until it is asked for.
    const long = turn(2).locator('.said');
    assert.equal((await long.locator('.prose').textContent()).length, 20000);
    await long.getByRole('button', { name: 'Show all of it (1.0 MB)' }).click();
    assert.equal((await long.locator('.prose').textContent()).length, LONG.length + 5);
    await untouched(page);
    await page.getByRole('button', { name: 'Raw events' }).click();
    await page.locator('details.event').first().waitFor();
    await page.locator('details.event summary').first().click();
    await untouched(page);
    await page.getByLabel('Types').selectOption('message');
    await page.locator('details.event').nth(1).locator('summary').click();
    await page.locator('details.event').nth(1).locator('.code').getByText('\\u202e0001').waitFor();
    assert.ok(!(await page.locator('.events').textContent()).includes('\u202e'));
  });
});

test('names of strangers in every list', async () => {
  const agent = '<img src=x onerror=window.pwned=1>\u202e';
  await at.gate.call('PUT', `agents/${encodeURIComponent(agent)}`, {});
  const token = await at.gate.mint(NAME, 'read write');
  const id = await at.gate.session(agent, token);
  await at.gate.call('POST', 'tokens/revoke', { sub: `${NAME}2` });
  const failing = await at.gate.session('support', token);
  await at.gate.say(failing, 'fail', token);
  await until('it is dead', async () => (await at.gate.call('GET', 'turns?state=dead')).turns.length > 0);
  await at.page('#/sessions', async (page) => {
    for (const [hash, text] of [['sessions', 'onerror'], ['agents', 'onerror'], ['access', '‹U+202E›'], ['audit', 'agent.put'], ['dead', failing], [`sessions/${id}`, 'onerror'], ['chat', 'Talk'], ['connections', 'support']]) {
      await page.goto(`${at.gate.url}/#/${hash}`);
      await page.locator('main').getByText(text).first().waitFor();
      await untouched(page);
      assert.ok(!(await page.locator('main').innerText()).includes('\u202e'), hash);
    }
  });
});

test('a command to copy quotes the id that somebody else chose', async () => {
  await at.gate.call('PUT', `agents/${encodeURIComponent('a; touch /tmp/x #')}`, {});
  await at.page('#/agents', async (page) => {
    await page.getByText("ebbgate agent --id 'a; touch /tmp/x #' --exec CMD").waitFor();
    await page.getByText('ebbgate agent --id ID --exec CMD').first().waitFor(); // the one with characters unseen
  });
});

test('a hostile address is no page and no markup', async () => {
  await at.page(`#/${encodeURIComponent(MARKUP)}`, async (page) => {
    await page.getByText('This address leads nowhere').waitFor();
    await untouched(page);
    await page.goto(`${at.gate.url}/#/sessions/%E0%A4%A`);
    await page.getByText('There is no such session').waitFor();
    await page.goto(`${at.gate.url}/#/constructor`);
    await page.getByText('This address leads nowhere').waitFor();
    await page.goto(`${at.gate.url}/#/sessions?q=${encodeURIComponent(MARKUP)}`);
    await page.getByText(/No session is like that|at most/).first().waitFor();
    await untouched(page);
  }, { allow: /status of 40[04]/ });
});
