// Drives the page of the browser quick start. Told by environment: PAGE, CHROMIUM, PLAYWRIGHT.
import { createRequire } from 'node:module';
import assert from 'node:assert/strict';

const { chromium } = createRequire(process.env.PLAYWRIGHT + '/')('playwright-core');
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ['--no-sandbox'] });
try {
  const page = await browser.newPage();
  const lines = () => page.locator('#talk li').allTextContents();
  const say = async (text) => {
    await page.fill('input', text);
    await page.press('input', 'Enter');
  };
  const until = (count, text) =>
    page.waitForFunction(
      ([count, text]) => {
        const items = [...document.querySelectorAll('#talk li')];
        return items.length === count && items.at(-1).textContent.trim() === text;
      },
      [count, text],
    );
  // The text is complete before its turn is: a reload in between would be told the end of it.
  const taken = (cursor) => page.waitForFunction((cursor) => JSON.parse(localStorage.getItem('ebbgate:shout')).cursor === cursor, cursor);
  await page.goto(process.env.PAGE);
  await say('hello <b>');
  await until(2, 'Agent: HELLO <B>');
  await say('again');
  await until(4, 'Agent: AGAIN');
  await taken(6); // two turns: a message, its text, its end
  assert.equal((await lines())[0], 'You: hello <b>');
  await page.reload();
  await say('third');
  await until(2, 'Agent: THIRD'); // what was shown before is not told again
} finally {
  await browser.close();
}
