// Event streams read by a browser's own EventSource, across a restart of the gateway, and what a
// page of another site may do. Skipped where there is no Chromium.
'use strict';
const { describe, it, before, after } = require('node:test');
const assert = require('node:assert/strict');
const fs = require('node:fs');
const http = require('node:http');
const { chromium } = require('playwright-core');
const { Gate, eventually } = require('./gate.js');

const browserPath = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((p) => p && fs.existsSync(p));

describe('a browser', { skip: browserPath ? false : 'there is no Chromium; name one in CHROMIUM' }, () => {
  let g;
  let browser;
  let page;
  let site; // serves an empty page
  let friend; // origin in allowed_origins
  let stranger; // the same page from an origin that is not
  before(async () => {
    site = http.createServer((req, res) => res.setHeader('Content-Type', 'text/html').end('<!doctype html><title>page</title>'));
    await new Promise((done) => site.listen(0, '127.0.0.1', done));
    const { port } = site.address();
    friend = `http://friend.test:${port}`;
    stranger = `http://stranger.test:${port}`;
    g = await new Gate(['--allowed_origins', friend]).start();
    browser = await chromium.launch({ executablePath: browserPath, args: ['--no-sandbox', '--host-resolver-rules=MAP *.test 127.0.0.1', '--disable-features=LocalNetworkAccessChecks,PrivateNetworkAccessChecks,BlockInsecurePrivateNetworkRequests'] });
    page = await browser.newPage();
  });
  after(async () => {
    await browser?.close();
    site?.close();
    g?.kill();
  });

  const follow = (url) => page.evaluate((u) => {
    window.got = [];
    window.errors = 0;
    window.source = new EventSource(u);
    for (const type of ['message', 'response', 'session_end', 'resync']) window.source.addEventListener(type, (e) => window.got.push([type, e.lastEventId, JSON.parse(e.data).data?.content]));
    window.source.onerror = () => { window.errors++; };
  }, url);
  const got = (n) => eventually(() => page.evaluate(() => window.got), (x) => x.length >= n, 20000);

  it('follows, comes back after a restart of the gateway, and misses and repeats nothing', async () => {
    await page.goto(friend);
    const id = await g.session(2);
    await follow(`http://${g.public}/v1/sessions/${id}/events?since=0&token=${g.alice()}`);
    assert.deepEqual(await got(2), [['message', '1', 'm1'], ['message', '2', 'm2']]);
    await g.ppost(`/v1/sessions/${id}/messages`, { content: 'live' }, { token: g.alice() });
    await got(3);
    assert.equal(await g.stop(), 0);
    await g.start(); // on the same port
    await g.ppost(`/v1/sessions/${id}/messages`, { content: 'after' }, { token: g.alice() });
    assert.deepEqual((await got(4)).slice(2), [['message', '3', 'live'], ['message', '4', 'after']]);
    await g.post(`/sessions/${id}/close`);
    const end = await eventually(() => page.evaluate(() => [window.source.readyState, window.got.filter((e) => e[0] === 'session_end').length]), ([s, n]) => s === 2 && n === 1, 20000);
    assert.deepEqual(end, [2, 1], 'told the end once, and does not come again');
    const ids = (await got(0)).map((e) => Number(e[1]));
    assert.deepEqual(ids, [...new Set(ids)].sort((a, b) => a - b));
  });

  it('lets a page of a stranger neither follow nor speak nor read', async () => {
    await page.goto(stranger);
    const id = await g.session(1);
    await follow(`http://${g.public}/v1/sessions/${id}/events?since=0&token=${g.alice()}`);
    await eventually(() => page.evaluate(() => window.errors), (n) => n > 0);
    assert.deepEqual(await page.evaluate(() => [window.got, window.source.readyState]), [[], 2]);
    const attempts = [[`http://${g.public}/v1/sessions/${id}/messages`, g.alice()], [`http://${g.public}/v1/sessions/${id}/abort`, g.alice()],
      [`http://${g.admin}/api/v1/sessions/${id}/close`, g.token()], [`http://${g.admin}/api/v1/drain`, g.token()]];
    for (const [url, token] of attempts) {
      for (const headers of [{ Authorization: `Bearer ${token}` }, {}]) {
        const target = headers.Authorization ? url : `${url}?token=${token}`;
        const r = await page.evaluate(async ([u, h]) => {
          try {
            const answer = await fetch(u, { method: 'POST', headers: h, body: '{"content":"x"}' });
            return answer.status;
          } catch {
            return 'blocked';
          }
        }, [target, headers]);
        assert.equal(r, 'blocked', target);
      }
    }
    const s = (await g.get(`/sessions/${id}`)).json;
    assert.deepEqual([s.state, s.cursor], ['open', 1]);
    assert.equal((await g.get('/stats')).json.draining, false);
  });

  it('lets the page of a friend speak and read', async () => {
    await page.goto(friend);
    const id = await g.session();
    const r = await page.evaluate(async ([base, session, token]) => {
      const headers = { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json', 'Idempotency-Key': 'one' };
      const said = await fetch(`${base}/v1/sessions/${session}/messages`, { method: 'POST', headers, body: '{"content":"from a page"}' });
      const refused = await fetch(`${base}/v1/sessions/nothing/events`, { headers: { Authorization: `Bearer ${token}` } });
      return [said.status, (await said.json()).cursor, refused.status, (await refused.json()).code];
    }, [`http://${g.public}`, id, g.alice()]);
    assert.deepEqual(r, [202, 1, 404, 'session_not_found']);
  });
});
