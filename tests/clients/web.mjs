// Drives examples/web in a headless Chromium. Told by environment: PAGE, CHROMIUM, PLAYWRIGHT, EBBGATE_URL,
// EBBGATE_TOKEN. Prints "restart the gateway" when it wants that, and goes on at the next line on stdin.
import { createRequire } from 'node:module';
import { once } from 'node:events';
import assert from 'node:assert/strict';

const { chromium } = createRequire(process.env.PLAYWRIGHT + '/')('playwright-core');
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ['--no-sandbox'] });
const page = await browser.newPage();
// A gateway that is slow to hear: what a person does while the page connects must not be lost.
await page.addInitScript(() => {
  const { send } = WebSocket.prototype;
  WebSocket.prototype.send = function (text) {
    if (text.includes('"type":"hello"')) setTimeout(() => send.call(this, text), 200);
    else send.call(this, text);
  };
});
const wrong = [];
page.on('pageerror', (error) => wrong.push(String(error)));
const count = (to) => Array.from({ length: to }, (_, n) => n + 1).join(' ');
const bubbles = () => page.locator('#talk li').allTextContents();
const settled = (text) => page.waitForFunction((want) => [...document.querySelectorAll('#talk li')].at(-1)?.textContent.trim() === want, text);

async function say(text) {
  await page.fill('#say [name=text]', text);
  await page.press('#say [name=text]', 'Enter');
}

try {
  const fragment = new URLSearchParams({ url: process.env.EBBGATE_URL, agent: 'counter', token: process.env.EBBGATE_TOKEN });
  await page.goto(`${process.env.PAGE}#${fragment}`);
  await page.waitForSelector('#say:not([hidden])');
  assert.equal(new URL(page.url()).hash, '', 'the token stays out of the address');
  await say('5');
  await settled(count(5));

  await say('40');
  await page.waitForFunction(() => /\b10\b/.test([...document.querySelectorAll('#talk li')].at(-1).textContent));
  console.log('restart the gateway');
  await once(process.stdin, 'data');
  await settled(count(40));

  await page.reload(); // the token is in sessionStorage, the conversation in the log
  await settled(count(40));
  assert.deepEqual((await bubbles()).map((text) => text.trim()), ['5', count(5), '40', count(40)]);

  await say('1000');
  await page.waitForFunction(() => {
    const [asked, told] = [...document.querySelectorAll('#talk li')].slice(-2);
    return asked.textContent === '1000' && /\b5\b/.test(told.textContent);
  });
  await page.click('#stop');
  await page.waitForFunction(() => [...document.querySelectorAll('#talk li')].at(-1).textContent.endsWith('(stopped)'));

  await page.click('#fresh');
  await page.waitForFunction(() => document.querySelectorAll('#talk li').length === 0);
  await say('<b>3</b>');
  await page.waitForFunction(() => document.querySelectorAll('#talk li')[1]?.textContent.startsWith('Tell me'));
  assert.equal((await bubbles())[0], '<b>3</b>', 'text is shown as text');
  assert.deepEqual(wrong, []);
} catch (error) {
  console.error(error, wrong, await bubbles(), await page.locator('#status').textContent());
  process.exitCode = 1;
} finally {
  await browser.close();
  process.stdin.destroy();
}
