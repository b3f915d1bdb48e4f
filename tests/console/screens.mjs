/** Pictures of every page, light and dark, wide and narrow, into $SCREENS: to be looked at. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { enter, launch, open } from './lib/browser.mjs';
import { Gateway, until } from './lib/gateway.mjs';

const folder = process.env.SCREENS;
const only = process.argv[2] ?? '';
await mkdir(folder, { recursive: true });

const gate = await Gateway.start();
const browser = await launch();
try {
  await gate.agent('support');
  await gate.agent('billing');
  await gate.call('PUT', 'agents/night-shift', {});
  const people = ['alice', 'bob', 'carol@example.org', 'dave'];
  const talk = {};
  for (const who of people) {
    const token = await gate.mint(who, 'read write');
    for (let i = 0; i < 9; i += 1) {
      const id = await gate.session(i % 3 ? 'support' : 'billing', token);
      await gate.say(id, i % 4 ? `echo Hello, this is question ${i} of ${who}.` : 'fail', token);
      talk[who] = id;
    }
  }
  const main = await gate.session('support', await gate.mint('alice', 'read write'));
  for (const text of ['Where is my order?', 'tools', 'differ', 'echo Thank you, and goodbye.']) await gate.call('POST', `sessions/${main}/messages`, { content: text });
  await gate.settled(main);
  await gate.call('POST', `sessions/${main}/messages`, { content: 'tick' });
  const closed = await gate.session('support');
  await gate.call('POST', `sessions/${closed}/close`, {});
  await gate.call('POST', 'tokens/revoke', { sub: 'mallory' });
  await until('dead letters', async () => (await gate.call('GET', 'turns?state=dead')).turns.length > 3);

  const pages = {
    overview: '#/overview', sessions: '#/sessions', session: `#/sessions/${main}`, raw: `#/sessions/${main}?view=raw`, closed: `#/sessions/${closed}`,
    nosession: '#/sessions/nope', nomatch: '#/sessions?q=zzz', agents: '#/agents', connections: '#/connections', dead: '#/dead', access: '#/access', audit: '#/audit',
    chat: '#/chat', talking: '#/chat?agent=support&session=SESSION',
  };
  /** Moments that an address alone does not lead to. */
  const acts = {
    async dialog(page) {
      await page.goto(`${gate.url}/#/sessions/${main}`);
      await page.getByRole('button', { name: 'Close', exact: true }).click();
      await page.getByRole('dialog').waitFor();
    },
    async minted(page) {
      await page.goto(`${gate.url}/#/access`);
      await page.getByLabel('For (sub)').fill('kiosk');
      await page.getByRole('button', { name: 'Make the token' }).click();
      await page.locator('.minted').waitFor();
    },
    async story(page, mine) {
      await page.goto(`${gate.url}/#/chat?agent=support&session=${mine}`);
      await page.locator('.tail').getByText('connected').waitFor();
      await page.context().setOffline(true);
      for (const c of (await gate.call('GET', `sessions/${mine}`)).connections) await gate.call('DELETE', `connections/${c.id}`).catch(() => {});
      await page.locator('.tail').getByText('no connection').waitFor();
      await page.getByLabel('Say something').fill('Are you there?');
      await page.getByLabel('Say something').press('Enter');
      await page.locator('.story-box summary').click();
    },
    async back(page) {
      await page.context().setOffline(false);
      await page.getByText('You said: Are you there?').first().waitFor();
    },
    async raised(page) {
      await page.goto(`${gate.url}/#/sessions/${main}?view=raw`);
      await page.locator('details.event summary').nth(3).click();
      await page.locator('details.event .code').waitFor();
    },
    async away(page) {
      await page.goto(`${gate.url}/#/overview`);
      await page.locator('.tile').first().waitFor();
      await page.context().setOffline(true);
      await page.getByText('The gateway does not answer').waitFor();
      await page.context().setOffline(false);
    },
  };
  for (const [kind, options] of Object.entries({
    light: { colorScheme: 'light' },
    dark: { colorScheme: 'dark' },
    phone: { colorScheme: 'light', viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true },
  })) {
    const page = await open(browser, options);
    await page.goto(gate.url);
    await page.getByLabel('Token').waitFor();
    await page.screenshot({ path: join(folder, `${kind}-signin.png`) });
    await enter(page, gate);
    const mine = await gate.session('support');
    await gate.say(mine, 'tools');
    await gate.settled(mine);
    for (const [name, hash] of Object.entries(pages)) {
      if (!name.includes(only)) continue;
      await page.goto(`${gate.url}/${hash.replace('SESSION', mine)}`);
      await page.locator('h1').waitFor();
      await page.locator('.state.loading').first().waitFor({ state: 'detached' });
      if (name === 'overview') await page.waitForFunction(() => document.querySelectorAll('.line.one[d*=L]').length >= 3);
      if (name === 'talking') await page.getByText('should be with you tomorrow').first().waitFor();
      await page.screenshot({ path: join(folder, `${kind}-${name}.png`), fullPage: name !== 'session' && name !== 'raw' });
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - screen.width);
      if (wide > 0) console.log(`${kind} ${name}: ${wide} px too wide`);
    }
    for (const [name, act] of Object.entries(acts)) {
      if (!name.includes(only)) continue;
      await act(page, mine);
      await page.screenshot({ path: join(folder, `${kind}-${name}.png`) });
    }
    for (const fault of page.faults) console.log(`${kind}: ${fault}`);
    await page.context().close();
  }
  console.log(`pictures are in ${folder}`);
} finally {
  await browser.close();
  await gate.stop();
}
