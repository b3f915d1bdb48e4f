// What a hostile page, client or network may try.
'use strict';
const { describe, it, before, after } = require('node:test');
const assert = require('node:assert/strict');
const net = require('node:net');
const { Gate, eventually } = require('./gate.js');

// Sends text as it is; resolves with all that comes until the other side closes.
function raw(address, parts, pause = 0) {
  const [host, port] = address.split(':');
  return new Promise((done) => {
    const s = net.connect(port, host);
    let text = '';
    const started = Date.now();
    s.on('data', (d) => { text += d; });
    s.on('close', () => done({ text, ms: Date.now() - started, status: Number(text.split(' ')[1]) || 0 }));
    s.on('error', () => {});
    (async () => {
      for (const p of parts) {
        if (s.destroyed) return;
        s.write(p);
        if (pause) await new Promise((r) => setTimeout(r, pause));
      }
    })();
  });
}

describe('security', () => {
  let g;
  before(async () => {
    g = await new Gate(['--allowed_origins', 'https://app.example', '--max_payload', '65536']).start();
  });
  after(async () => { assert.equal(await g.stop(), 0); g.kill(); });

  it('only names of loopback reach the admin listener (DNS rebinding)', async () => {
    const port = g.admin.split(':')[1];
    for (const host of [`127.0.0.1:${port}`, `localhost:${port}`, '127.0.0.1']) assert.equal((await g.get('/stats', { headers: { Host: host } })).status, 200, host);
    for (const host of ['evil.example', `evil.example:${port}`, `127.0.0.1.evil.example:${port}`, 'localhost.evil.example', 'x']) {
      for (const p of ['/', '/live', '/api/v1/stats']) {
        const r = await g.request('admin', 'GET', p, { headers: { Host: host }, raw: true });
        assert.ok([400, 403, 421].includes(r.status), `${host} ${p}: ${r.status}`);
        assert.ok(!r.text.includes('<html'), host);
      }
    }
  });

  it('other sites may not use the admin API from a browser', async () => {
    for (const Origin of ['https://evil.example', 'null', 'http://127.0.0.1:1', 'https://app.example', `http://${g.public}`]) {
      const r = await g.post('/drain', {}, { headers: { Origin } });
      assert.deepEqual([r.status, r.json.code], [403, 'origin_not_allowed'], Origin);
      assert.equal(r.headers['access-control-allow-origin'], undefined);
      const asked = await g.request('admin', 'OPTIONS', '/api/v1/sessions', { token: null, raw: true, headers: { Origin, 'Access-Control-Request-Method': 'POST' } });
      assert.equal(asked.status, 403);
      assert.equal(asked.headers['access-control-allow-methods'], undefined);
    }
    const own = await g.get('/stats', { headers: { Origin: `http://${g.admin}` } });
    assert.equal(own.status, 200);
    assert.equal(own.headers['access-control-allow-origin'], undefined);
    assert.equal((await g.get('/stats')).json.draining, false);
  });

  it('CORS on the public listener is for allowed_origins', async () => {
    const id = await g.session(1);
    const path = `/v1/sessions/${id}/events`;
    const app = await g.pget(path, { token: g.alice(), headers: { Origin: 'https://app.example' } });
    assert.equal(app.headers['access-control-allow-origin'], 'https://app.example');
    assert.equal(app.headers['access-control-allow-credentials'], undefined);
    assert.match(app.headers.vary, /Origin/);
    const pre = await g.request('public', 'OPTIONS', path, { token: null, raw: true, headers: { Origin: 'https://app.example', 'Access-Control-Request-Method': 'GET', 'Access-Control-Request-Headers': 'authorization' } });
    assert.equal(pre.status, 204);
    assert.match(pre.headers['access-control-allow-headers'], /Authorization/);
    const failed = await g.pget(path, { token: 'x', headers: { Origin: 'https://app.example' } });
    assert.equal(failed.headers['access-control-allow-origin'], 'https://app.example', 'a page can read why');
    for (const Origin of ['https://evil.example', 'null', 'https://app.example.evil.example', 'http://app.example']) {
      const r = await g.pget(path, { token: g.alice(), headers: { Origin } });
      assert.deepEqual([r.status, r.json.code], [403, 'origin_not_allowed'], Origin);
      assert.equal(r.headers['access-control-allow-origin'], undefined);
      const p = await g.request('public', 'OPTIONS', path, { token: null, raw: true, headers: { Origin, 'Access-Control-Request-Method': 'GET' } });
      assert.equal(p.status, 403);
    }
    const local = await g.pget(path, { token: g.alice(), headers: { Origin: 'http://localhost:3000' } });
    assert.equal(local.status, 200);
    assert.equal(local.headers['access-control-allow-origin'], undefined);
  });

  it('headers that keep a browser from guessing, framing, caching', async () => {
    const api = await g.get('/stats');
    assert.equal(api.headers['x-content-type-options'], 'nosniff');
    assert.equal(api.headers['x-frame-options'], 'DENY');
    assert.equal(api.headers['cache-control'], 'no-store');
    assert.equal(api.headers['content-security-policy'], "default-src 'none'; frame-ancestors 'none'");
    const file = await g.request('admin', 'GET', '/openapi.yaml', { token: null });
    const csp = file.headers['content-security-policy'];
    for (const part of ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", `ws://${g.public}`]) assert.ok(csp.includes(part), csp);
    assert.ok(!/unsafe|\*/.test(csp), csp);
    assert.equal(file.headers['set-cookie'], undefined);
    const known = await g.request('admin', 'GET', '/openapi.yaml', { token: null, raw: true, headers: { 'If-None-Match': file.headers.etag } });
    assert.deepEqual([known.status, known.text], [304, '']);
  });

  it('nothing but the console is served as a file', async () => {
    for (const p of ['/../openapi.yaml', '/%2e%2e/etc/passwd', '/..%2f..%2fetc/passwd', '/sql/0001_initial.sql', '/.', '/admin/openapi.yaml', '/openapi.yaml/', '/etc/passwd', '/%00']) {
      const r = await raw(g.admin, [`GET ${p} HTTP/1.1\r\nHost: ${g.admin}\r\n\r\n`]);
      assert.ok([400, 404].includes(r.status), `${p}: ${r.text.slice(0, 200)}`);
    }
  });

  it('HEAD is GET without a body', async () => {
    for (const [where, p] of [['admin', '/api/v1/stats'], ['admin', '/openapi.yaml'], ['public', '/ready']]) {
      const token = g.token();
      const r = await raw(g[where], [`HEAD ${p} HTTP/1.1\r\nHost: ${g[where]}\r\nAuthorization: Bearer ${token}\r\n\r\n`]);
      assert.equal(r.status, 200, r.text);
      assert.ok(r.text.endsWith('\r\n\r\n'), r.text);
      assert.match(r.text, /Content-Length: [1-9]/);
    }
    const id = await g.session(2);
    for (const Accept of ['text/event-stream', 'application/x-ndjson']) {
      const r = await raw(g.admin, [`HEAD /api/v1/sessions/${id}/events HTTP/1.1\r\nHost: ${g.admin}\r\nAuthorization: Bearer ${g.token()}\r\nAccept: ${Accept}\r\n\r\n`]);
      assert.equal(r.status, 200);
      assert.ok(r.text.endsWith('\r\n\r\n'), r.text);
    }
  });

  it('a body is bounded in size', async () => {
    const id = await g.session();
    const r = await g.ppost(`/v1/sessions/${id}/messages`, { content: 'x'.repeat(70000) }, { token: g.alice() });
    assert.deepEqual([r.status, r.json.code], [413, 'payload_too_large']);
    const most = JSON.stringify({ content: '' });
    const fits = await g.ppost(`/v1/sessions/${id}/messages`, { content: 'x'.repeat(65536 - most.length) }, { token: g.alice() });
    assert.equal(fits.status, 202);
    const over = await g.ppost(`/v1/sessions/${id}/messages`, { content: 'x'.repeat(65537 - most.length) }, { token: g.alice() });
    assert.equal(over.status, 413);
    const head = `POST /v1/sessions/${id}/messages HTTP/1.1\r\nHost: ${g.public}\r\nAuthorization: Bearer ${g.alice()}\r\n`;
    for (const [fields, status] of [['Content-Length: 99999999999999999999\r\n', [400, 413]], ['Content-Length: -1\r\n', [400, 411]], ['Content-Length: 2\r\nContent-Length: 3\r\n', [400]],
      ['Transfer-Encoding: chunked\r\n', [400, 411, 501]], ['Content-Length: 2\r\nTransfer-Encoding: chunked\r\n', [400, 411, 501]]]) {
      const bad = await raw(g.public, [`${head}${fields}\r\n{}`]);
      assert.ok(status.includes(bad.status), `${fields}: ${bad.text}`);
    }
  });

  it('a body may come in pieces, and after 100 Continue', async () => {
    const id = await g.session();
    const body = JSON.stringify({ content: 'piecemeal' });
    const head = `POST /v1/sessions/${id}/messages HTTP/1.1\r\nHost: ${g.public}\r\nAuthorization: Bearer ${g.alice()}\r\nContent-Length: ${body.length}\r\n`;
    const slow = await raw(g.public, [`${head}\r\n`, ...body], 5);
    assert.equal(slow.status, 202, slow.text);
    const patient = await raw(g.public, [`${head}Expect: 100-continue\r\n\r\n`, body], 50);
    assert.match(patient.text, /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 202 /);
    const odd = await raw(g.public, [`${head}Expect: a miracle\r\n\r\n`, body]);
    assert.equal(odd.status, 417);
  });

  it('a body is bounded in time, and holds up nobody else', async () => {
    const id = await g.session();
    const head = `POST /v1/sessions/${id}/messages HTTP/1.1\r\nHost: ${g.public}\r\nAuthorization: Bearer ${g.alice()}\r\nContent-Length: 1000\r\n\r\n`;
    const drips = Array.from({ length: 8 }, () => raw(g.public, [head, ...'x'.repeat(300)], 50));
    const quick = Date.now();
    assert.equal((await g.ppost(`/v1/sessions/${id}/messages`, { content: 'x' }, { token: g.alice() })).status, 202);
    assert.ok(Date.now() - quick < 5000);
    for (const r of await Promise.all(drips)) {
      assert.equal(r.status, 408, r.text);
      assert.ok(r.ms >= 9000 && r.ms < 20000, String(r.ms));
    }
  });

  it('an answer is bounded in time: who does not read is let go', async () => {
    const id = await g.session();
    for (let i = 0; i < 150; i++) await g.post(`/sessions/${id}/messages`, { content: 'z'.repeat(60000) });
    const [host, port] = g.admin.split(':');
    const stalled = await Promise.all(Array.from({ length: 3 }, () => new Promise((begun) => {
      const s = net.connect({ port, host });
      s.once('readable', () => begun(s)); // and nobody reads it
      s.write(`GET /api/v1/sessions/${id}/events HTTP/1.1\r\nHost: ${g.admin}\r\nAuthorization: Bearer ${g.token()}\r\nAccept: application/x-ndjson\r\n\r\n`);
    })));
    // Three exports at a time; the others still get an answer, and a place when one was let go.
    const more = () => g.get(`/sessions/${id}/events`, { headers: { Accept: 'application/x-ndjson' } });
    const refused = await more();
    assert.deepEqual([refused.status, refused.json?.code], [429, 'rate_limited']);
    assert.equal((await g.get('/stats')).status, 200);
    const served = await eventually(more, (r) => r.status === 200, 40000);
    assert.equal(served.text.trimEnd().split('\n').length, 150);
    for (const s of stalled) s.destroy();
  });

  it('a secret never reaches the log', async () => {
    const token = g.token();
    await g.pget(`/v1/sessions/x/events?token=${token}`, { token: null });
    await g.get('/stats', { token: `${token}x` });
    const minted = (await g.post('/tokens', { sub: 'm', scope: 'read' })).json.token;
    for (const secret of [token, minted]) assert.ok(!g.log.includes(secret) && !g.log.includes(secret.split('.')[2]));
    const audit = await g.get('/audit?limit=500');
    assert.ok(!audit.text.includes(minted) && !audit.text.includes(minted.split('.')[2]));
  });
});
