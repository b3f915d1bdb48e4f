/** Signing in and out: where the token is, and what happens when it is not good. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { open } from './lib/browser.mjs';
import { fixture } from './lib/fixture.mjs';

const at = fixture([]);
const UNAUTHORIZED = /status of 40[13]/;

async function blank(body, allow) {
  const page = await open(at.browser);
  try {
    await page.goto(at.gate.url);
    await body(page);
    assert.deepEqual(page.faults.filter((fault) => !allow?.test(fault)), []);
  } finally {
    await page.context().close();
  }
}

const paste = async (page, token) => {
  await page.getByLabel('Token').fill(token);
  await page.getByRole('button', { name: 'Sign in' }).click();
};

test('the first steps stay as they are while one copies them', async () => {
  await blank(async (page) => {
    await paste(page, at.gate.token);
    await page.getByText('Nothing is connected yet').waitFor();
    await page.locator('main pre').evaluate((pre) => getSelection().selectAllChildren(pre));
    for (let i = 0; i < 3; i += 1) await page.waitForResponse((response) => response.url().endsWith('/metrics'));
    assert.match(await page.evaluate(() => getSelection().toString()), /^ebbgate agent /);
  });
});

test('a pasted token lets one in, and is kept in this tab only', async () => {
  await blank(async (page) => {
    await paste(page, `Bearer ${at.gate.token}`);
    await page.getByRole('heading', { name: 'Overview' }).waitFor();
    assert.equal(await page.evaluate(() => sessionStorage.getItem('ebbgate.token')), at.gate.token);
    assert.equal(await page.evaluate(() => JSON.stringify(localStorage)), '{}');
    assert.deepEqual(await page.context().cookies(), []);
    await page.reload();
    await page.getByRole('heading', { name: 'Overview' }).waitFor();
    const other = await page.context().newPage();
    await other.goto(at.gate.url);
    await other.getByLabel('Token').waitFor();
  });
});

test('a token in the fragment is taken out of the address and of the history', async () => {
  await blank(async (page) => {
    await page.goto(`${at.gate.url}/#token=${at.gate.token}`);
    await page.getByRole('heading', { name: 'Overview' }).waitFor();
    assert.ok(!page.url().includes('token'), page.url());
    await page.getByRole('link', { name: 'Sessions', exact: true }).click();
    await page.getByRole('heading', { level: 1, name: 'Sessions' }).waitFor();
    await page.goBack();
    await page.getByRole('heading', { name: 'Overview' }).waitFor();
    assert.ok(!page.url().includes('token'), page.url());
  });
});

test('what is wrong with a token is told', async () => {
  await blank(async (page) => {
    await paste(page, 'nonsense');
    await page.getByText('The gateway refuses this token').waitFor();
    await paste(page, await at.gate.mint('alice', 'read write'));
    await page.getByText('needs the scope admin').waitFor();
    assert.equal(await page.evaluate(() => sessionStorage.getItem('ebbgate.token')), null);
  }, UNAUTHORIZED);
});

test('a token to look with shows everything and changes nothing', async () => {
  const session = await at.gate.call('PUT', 'agents/quiet', {}).then(() => at.gate.session('quiet'));
  await blank(async (page) => {
    await paste(page, await at.gate.mint('watcher', 'admin:read'));
    await page.getByText('may only look').waitFor();
    await page.goto(`${at.gate.url}/#/sessions/${session}`);
    await page.getByRole('button', { name: 'Close' }).waitFor();
    for (const name of ['Close', 'Delete', 'Fork', 'Say', 'Abort turn']) {
      assert.ok(await page.getByRole('button', { name, exact: true }).isDisabled(), name);
    }
    await page.goto(`${at.gate.url}/#/chat`);
    await page.getByText('cannot hand out what a chat needs').waitFor();
  });
});

test('a token that is revoked while in use leads back to the sign-in page', async () => {
  await blank(async (page) => {
    await paste(page, await at.gate.mint('leaver', 'admin'));
    await page.getByRole('heading', { name: 'Overview' }).waitFor();
    await at.gate.call('POST', 'tokens/revoke', { sub: 'leaver' });
    await page.getByText('no longer good').waitFor();
    assert.equal(await page.evaluate(() => sessionStorage.getItem('ebbgate.token')), null);
  }, UNAUTHORIZED);
});

test('what was typed is there again when the token ended meanwhile, but not after signing out', async () => {
  await at.gate.call('PUT', 'agents/quiet', {});
  const mint = () => at.gate.call('POST', 'tokens', { sub: 'typist', scope: 'admin read write' });
  const last = await mint();
  const session = await at.gate.session('quiet', last.token);
  await blank(async (page) => {
    for (const [hash, label] of [[`sessions/${session}`, 'Say something as the operator'], [`chat?agent=quiet&session=${session}`, 'Say something']]) {
      const { token, jti } = await mint();
      await paste(page, token);
      await page.getByRole('button', { name: 'Sign out' }).waitFor();
      await page.goto(`${at.gate.url}/#/${hash}`);
      await page.getByLabel(label, { exact: true }).fill(`half of ${label}`);
      await at.gate.call('POST', 'tokens/revoke', { jti });
      await page.getByText('no longer good').waitFor();
      await paste(page, at.gate.token); // somebody else
      await page.getByRole('button', { name: 'Sign out' }).waitFor();
      assert.equal(await page.getByText(`half of ${label}`).count(), 0);
      await page.evaluate(() => sessionStorage.removeItem('ebbgate.token'));
      await page.goto(`${at.gate.url}/#token=${last.token}`);
      await page.getByRole('heading', { level: 1, name: 'Overview' }).waitFor();
      await page.goto(`${at.gate.url}/#/${hash}`);
      const field = page.getByLabel(label, { exact: true });
      await field.waitFor();
      assert.equal(await field.inputValue(), `half of ${label}`);
      await page.getByRole('button', { name: 'Sign out' }).click();
      await paste(page, last.token);
      await field.waitFor();
      assert.equal(await field.inputValue(), '');
      await page.getByRole('button', { name: 'Sign out' }).click();
    }
  }, /status of 401|WebSocket connection to/);
});

test('signing out forgets the token', async () => {
  await blank(async (page) => {
    await paste(page, at.gate.token);
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByLabel('Token').waitFor();
    assert.equal(await page.evaluate(() => sessionStorage.getItem('ebbgate.token')), null);
    await page.reload();
    await page.getByLabel('Token').waitFor();
  });
});

test('the policy of the pages', async () => {
  const answer = await fetch(at.gate.url);
  const policy = answer.headers.get('content-security-policy');
  for (const part of ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"]) {
    assert.ok(policy.includes(part), `${part} in ${policy}`);
  }
  assert.ok(!/unsafe|\*/.test(policy), policy);
  assert.equal(answer.headers.get('set-cookie'), null);
  await blank(async (page) => {
    const refused = await page.evaluate(() => {
      try {
        document.body.innerHTML = '<b>x</b>';
        return 'allowed';
      } catch (error) {
        return error.name;
      }
    });
    assert.equal(refused, 'TypeError');
  }, /TrustedHTML|trusted-types/);
});
