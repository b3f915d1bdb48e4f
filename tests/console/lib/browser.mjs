/**
 * Chromium, and pages that notice what must not happen: errors on the console, exceptions, requests
 * to other hosts, and whatever the content security policy refused.
 */
import { createRequire } from 'node:module';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';

const { chromium } = createRequire(join(process.env.CONSOLE_BUILD, 'index.js'))('playwright-core');
const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];

function executable() {
  for (const name of [process.env.CHROMIUM, 'chromium', 'chromium-browser', 'google-chrome']) {
    if (!name) continue;
    try {
      return execFileSync('sh', ['-c', 'command -v "$0"', name], { encoding: 'utf8' }).trim();
    } catch {
      // the next one
    }
  }
  throw new Error('there is no Chromium');
}

export const launch = () => chromium.launch({ executablePath: executable(), args: FLAGS, timeout: 60000 });

/**
 * A page of its own context. `page.faults` collects what must not happen; a pattern in `allow` lets some
 * be (a gateway that is down makes failed requests).
 */
export async function open(browser, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, ...options });
  await context.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', (e) => console.error(`CSP refused ${e.violatedDirective} ${e.blockedURI}`));
  });
  const page = await context.newPage();
  page.setDefaultTimeout(20000);
  page.faults = [];
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) page.faults.push(`console ${message.type()}: ${message.text()} ${message.location().url}`);
  });
  page.on('pageerror', (error) => page.faults.push(`exception: ${error.stack}`));
  page.on('dialog', (dialog) => {
    page.faults.push(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  page.on('request', (request) => {
    const host = new URL(request.url()).hostname;
    if (!/^(data|blob):/.test(request.url()) && host !== '127.0.0.1') page.faults.push(`request to ${request.url()}`);
  });
  return page;
}

/** Comes back to the tab: what a page refreshes now and then it refreshes at once. */
export const look = (page) => page.evaluate(() => document.dispatchEvent(new Event('visibilitychange')));

/** Opens the console with the token in the fragment. */
export async function enter(page, gate, hash = '') {
  await page.goto(`${gate.url}/#token=${gate.token}`);
  await page.getByRole('heading', { level: 1, name: 'Overview' }).waitFor();
  if (hash) await page.goto(`${gate.url}/${hash}`);
}
