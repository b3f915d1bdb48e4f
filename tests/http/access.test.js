// Who may do what: for each operation of the description the same questions.
'use strict';
const { describe, it, before, after } = require('node:test');
const assert = require('node:assert/strict');
const { Gate } = require('./gate.js');
const api = require('./api.js');

const fill = (template) => template.replace(/\{turn\}/, '1').replace(/\{id\}|\{session\}|\{kid\}/g, 'nothing-of-this-name');

describe('access', () => {
  let g;
  before(async () => { g = await new Gate().start(); });
  after(async () => { assert.equal(await g.stop(), 0); g.kill(); });

  for (const { template, method, where, op } of api.operations) {
    const on = where[where.length - 1];
    const name = `${method.toUpperCase()} ${template}`;
    const ask = (options, query = '') => g.request(on, method.toUpperCase(), fill(template) + query, options);
    const changes = method !== 'get';

    if (!op.security) {
      it(`${name}: no token, a bad one, too narrow a one`, async () => {
        const none = await ask({ token: null });
        assert.equal(none.status, 401);
        assert.equal(none.json.code, 'auth_required');
        assert.equal(none.json.next_step, 'reauthenticate');
        const good = g.token();
        const broken = `${good.slice(0, -6)}${good.slice(-6) === 'AAAAAA' ? 'BBBBBB' : 'AAAAAA'}`;
        for (const token of ['x', 'a.b.c', broken, good.replace('.', '..'), 'z'.repeat(8000)]) {
          const bad = await ask({ token });
          assert.equal(bad.status, 401, token.slice(0, 40));
          assert.equal(bad.json.code, 'auth_unauthorized');
        }
        const basic = await ask({ token: null, headers: { Authorization: 'Basic b3BzOm9wcw==' } });
        assert.equal(basic.json.code, 'auth_required');
        const scopes = on === 'public' ? [changes ? 'read' : 'write'] : changes ? ['read write agent admin:read'] : ['read write agent'];
        for (const scope of scopes) {
          const narrow = await ask({ token: g.token({ scope }) });
          assert.equal(narrow.status, 403);
          assert.equal(narrow.json.code, 'insufficient_scope');
          assert.equal(narrow.json.required_scope, on === 'public' ? (changes ? 'write' : 'read') : changes ? 'admin' : 'admin:read');
        }
      });
      if (on === 'admin') {
        it(`${name}: a token is not taken from the query`, async () => {
          const r = await ask({ token: null }, `?token=${g.token()}`);
          assert.ok([400, 401].includes(r.status), r.text);
        });
      }
    }

    it(`${name}: unknown parameters are named`, async () => {
      const r = await ask({ body: changes && method !== 'delete' ? {} : undefined }, '?colour=red');
      assert.equal(r.status, 400);
      assert.equal(r.json.code, 'invalid_request');
      assert.equal(r.json.field, 'colour');
      if (!changes) {
        const twice = await ask({}, '?limit=1&limit=2');
        assert.equal(twice.status, 400);
        assert.equal((await ask({}, '?limit=%zz')).status, 400);
        assert.equal((await ask({}, '?limit=%00')).status, 400);
        assert.equal((await ask({}, '?limit=%ff')).status, 400);
      }
    });

    if (method === 'post' || method === 'put') {
      it(`${name}: unknown fields are named, broken JSON is refused`, async () => {
        if (template.endsWith('/turns/{session}/{turn}/retry') || !op.requestBody) {
          const r = await ask({ body: { colour: 'red' } });
          assert.equal(r.status, 400);
          assert.equal(r.json.field, 'colour');
          return;
        }
        const r = await ask({ body: { colour: 'red' } });
        assert.equal(r.status, 400);
        assert.equal(r.json.field, 'colour');
        for (const body of ['{', '{"a":1,"a":2}', '{"a":"\\u0000"}', '[', '{} x', Buffer.from('{"a":"\xff"}', 'latin1'), `${'['.repeat(40)}${']'.repeat(40)}`]) {
          const bad = await ask({ body });
          assert.equal(bad.status, 400);
          assert.equal(bad.json.code, 'invalid_json', String(body));
        }
        for (const body of ['[]', '1', '"x"', 'null']) assert.equal((await ask({ body })).json.code, 'invalid_request');
      });
    }

    it(`${name}: other methods`, async () => {
      const path = fill(template); // of several templates, perhaps: /keys/rotate is also a key's name
      const described = api.operations.filter((o) => o.where.includes(on) && o.pattern.test(path)).map((o) => o.method.toUpperCase());
      const expected = [...described, ...(described.includes('GET') ? ['HEAD'] : [])].sort();
      for (const other of ['PATCH', 'OPTIONS', ...api.METHODS.map((m) => m.toUpperCase())]) {
        if (described.includes(other)) continue;
        const r = await g.request(on, other, fill(template), { raw: true });
        assert.equal(r.status, 405, other);
        assert.equal(r.json.code, 'method_not_allowed');
        assert.deepEqual(r.headers.allow.split(', ').sort(), expected);
      }
    });
  }

  it('more query parameters than anything takes', async () => {
    const query = (n) => Array.from({ length: n }, (_, i) => `p${i}=x`).join('&');
    assert.equal((await g.get(`/sessions?${query(16)}`)).json.field, 'p0');
    const r = await g.get(`/sessions?${query(17)}`);
    assert.deepEqual([r.status, r.json.field, r.json.detail], [400, undefined, 'there are too many query parameters']);
  });

  it('an expired token', async () => {
    const now = Math.floor(Date.now() / 1000);
    const claims = { sub: 'ops', jti: 'late', scope: 'admin', iat: now - 600, exp: now + 600 };
    assert.equal((await g.get('/stats', { token: g.forge(claims) })).status, 200);
    for (const change of [{ exp: now - 61 }, { exp: undefined }, { nbf: now + 120 }, { jti: undefined }, { sub: undefined }, { exp: now + 400 * 86400 }]) {
      const r = await g.get('/stats', { token: g.forge({ ...claims, ...change }) });
      assert.equal(r.status, 401, JSON.stringify(change));
      assert.equal(r.json.title, 'the token does not allow this');
      assert.equal(r.json.detail, undefined); // one message for every cause
    }
    assert.equal((await g.get('/stats', { token: g.forge(claims, { alg: 'none' }) })).status, 401);
  });

  it('admin:read reads and does not change', async () => {
    const token = g.token({ scope: 'admin:read' });
    assert.equal((await g.get('/sessions', { token })).status, 200);
    assert.equal((await g.put('/agents/new', undefined, { token })).status, 403);
    assert.equal((await g.get('/agents/new')).status, 404);
  });

  it('paths that are not there', async () => {
    for (const p of ['/api/v1', '/api/v1/', '/api/v1/sessions/', '/api/v1/nothing', '/api/v2/sessions', '/v1/sessions',
      '/api/v1/sessions/a/b/c', '//api/v1/sessions', '/api/v1//sessions', '/.well-known/jwks.json']) {
      const r = await g.request('admin', 'GET', p);
      assert.equal(r.status, 404, p);
    }
    for (const p of ['/', '/index.html', '/metrics', '/api/v1/sessions', '/openapi.yaml', '/v1', '/v1/sessions/x']) {
      const r = await g.request('public', 'GET', p);
      assert.equal(r.status, 404, p);
      assert.equal(r.json.code, 'not_found');
    }
  });
});
