/** Whoever has only a keyboard, a phone, dark eyes or a screen reader. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { open } from './lib/browser.mjs';
import { fixture } from './lib/fixture.mjs';
import { until } from './lib/gateway.mjs';

let talk;
let pages;

const at = fixture(['support'], [], async (at) => {
  talk = await at.gate.session('support');
  for (const text of ['tools', 'differ', 'fail', `echo ${'longword'.repeat(60)} ${'a b '.repeat(300)}`]) await at.gate.say(talk, text);
  await at.gate.settled(talk);
  pages = ['overview', 'sessions', 'agents', 'connections', 'dead', 'access', 'audit', 'chat', `sessions/${talk}`, `sessions/${talk}?view=raw`, `chat?agent=support&session=${talk}`];
});

const ready = async (page, hash) => {
  await page.goto(`${at.gate.url}/#/${hash}`);
  await page.locator('h1').waitFor();
  await page.evaluate(() => document.querySelectorAll('main > details').forEach((box) => (box.open = true)));
  await page.locator('.state.loading').first().waitFor({ state: 'detached' });
};

test('every page fits a phone of 360 pixels', async () => {
  await at.page('', async (page) => {
    for (const hash of pages) {
      await ready(page, hash);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(wide <= 360, `${hash} is ${wide} px wide`);
      const out = await page.evaluate(() => [...document.querySelectorAll('main button, main input, main select, main textarea, main a')]
        .filter((e) => e.checkVisibility() && !e.closest('.chart-plot, .copy-text, .prose'))
        .filter((e) => e.getBoundingClientRect().right > innerWidth + 0.5 || e.getBoundingClientRect().left < -0.5).map((e) => e.outerHTML.slice(0, 120)));
      assert.deepEqual(out, [], hash);
    }
    await page.getByRole('button', { name: 'Menu' }).click();
    await page.getByRole('link', { name: 'Audit log' }).click();
    await page.getByRole('heading', { name: 'Audit log' }).waitFor();
    assert.ok(await page.getByRole('link', { name: 'Overview' }).isHidden());
  }, { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true });
});

test('a session by keyboard alone: sign in, find, say, stop, fork', async () => {
  const page = await open(at.browser);
  const press = (...keys) => keys.reduce((done, key) => done.then(() => page.keyboard.press(key)), Promise.resolve());
  /** Tabs until the element with this accessible name and role has the focus. */
  const reach = async (what, key = 'Tab') => {
    for (let i = 0; i < 120; i += 1) {
      if (await page.evaluate((text) => {
        const e = document.activeElement;
        const name = e.getAttribute('aria-label') ?? (e.labels?.[0]?.textContent || e.textContent);
        return name.trim().startsWith(text);
      }, what)) {
        const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
        assert.notEqual(outline, 'none', `${what} shows that it has the focus`);
        return;
      }
      await page.keyboard.press(key);
    }
    throw new Error(`the keyboard never reaches ${what}`);
  };
  try {
    await page.goto(at.gate.url);
    await page.getByLabel('Token').waitFor();
    await page.keyboard.insertText(at.gate.token); // the field has the focus already
    await press('Enter');
    await page.getByRole('heading', { level: 1, name: 'Overview' }).waitFor();
    await page.reload();
    await page.getByRole('heading', { level: 1, name: 'Overview' }).waitFor();
    await reach('Sessions');
    await press('Enter');
    await page.getByRole('heading', { level: 1, name: 'Sessions' }).waitFor();
    await reach('Search');
    await page.keyboard.insertText(talk.slice(-12));
    await until('it is found', async () => (await page.locator('tbody tr').count()) === 1);
    await reach(talk);
    await press('Enter');
    await page.locator('.tail').getByText('live').waitFor();
    await reach('Say something as the operator');
    await page.keyboard.insertText('tick');
    await press('Enter');
    const last = page.locator('.turn').last();
    await last.locator('.answer').getByText('piece 3.').waitFor();
    await reach('Abort turn');
    await press('Space');
    await last.locator('.outcome').getByText('aborted').waitFor();
    await reach('Fork', 'Shift+Tab');
    await reach('Close', 'Shift+Tab');
    await press('Enter');
    await page.getByRole('dialog').waitFor();
    await press('Escape');
    await page.getByRole('dialog').waitFor({ state: 'detached' });
    await until('the focus is back', () => page.evaluate(() => document.activeElement.textContent === 'Close'));
    await reach('Skip to the page', 'Shift+Tab');
    await press('Enter');
    await until('the page has the focus', () => page.evaluate(() => document.activeElement.id === 'main'));
    assert.deepEqual(page.faults, []);
  } finally {
    await page.context().close();
  }
});

/** In the page: texts whose contrast with what lies behind them is below WCAG's 4.5 (3 for large text). */
function faint() {
  const paint = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgba = (color) => {
    paint.clearRect(0, 0, 1, 1);
    paint.fillStyle = color;
    paint.fillRect(0, 0, 1, 1);
    return [...paint.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const color = rgba(getComputedStyle(e).backgroundColor);
      if (color[3] === 255) return color;
    }
    return [255, 255, 255, 255];
  };
  const found = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || !e.checkVisibility({ opacityProperty: true }) || e.closest(':disabled, .hidden-text, .check:has(:disabled)') || e.matches('option')) continue;
    const style = getComputedStyle(e);
    const [a, b] = [light(rgba(style.color)), light(behind(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.6 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) found.push(`${ratio.toFixed(2)} ${e.tagName}.${e.className}: ${e.textContent.slice(0, 40)}`);
  }
  return [...new Set(found)];
}

for (const colorScheme of ['light', 'dark']) {
  test(`every text can be read in ${colorScheme}`, async () => {
    await at.page('', async (page) => {
      for (const hash of pages) {
        await ready(page, hash);
        assert.deepEqual(await page.evaluate(faint), [], hash);
      }
      const ground = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      await page.getByLabel('Colours').selectOption(colorScheme === 'dark' ? 'light' : 'dark');
      assert.notEqual(await page.evaluate(() => getComputedStyle(document.body).backgroundColor), ground);
    }, { colorScheme });
  });
}

test('every control has a name, every page one heading and a title', async () => {
  await at.page('', async (page) => {
    for (const hash of pages) {
      await ready(page, hash);
      const nameless = await page.evaluate(() => [...document.querySelectorAll('button, input, select, textarea, a')]
        .filter((e) => e.checkVisibility() && !(e.getAttribute('aria-label') || e.labels?.length || e.textContent.trim())).map((e) => e.outerHTML.slice(0, 100)));
      assert.deepEqual(nameless, [], hash);
      assert.equal(await page.locator('h1').count(), 1, hash);
      assert.match(await page.title(), /\S+ – Ebbgate$/);
      const doubled = await page.evaluate(() => [...document.querySelectorAll('[id]')].map((e) => e.id).filter((id, i, all) => all.indexOf(id) !== i));
      assert.deepEqual(doubled, [], hash);
    }
  });
});
