// Tokens, keys, connections, numbers, backup, drain.
'use strict';
const { describe, it, before, after } = require('node:test');
const assert = require('node:assert/strict');
const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { Gate, BIN, eventually } = require('./gate.js');

describe('operation', () => {
  let g;
  before(async () => { g = await new Gate(['--max_token_lifetime', '2d', '--audience', 'here']).start(); g.audience = 'here'; });
  after(async () => { assert.equal(await g.stop(), 0); g.kill(); });
  const claims = (token) => JSON.parse(Buffer.from(token.split('.')[1], 'base64url'));

  it('mints a token that works', async () => {
    const r = await g.post('/tokens', { sub: 'app', scope: 'read write', agents: ['support'], sessions: ['s1'], ttl: 600 }, { token: g.token({ sessions: '*' }) });
    assert.equal(r.status, 201);
    const c = claims(r.json.token);
    assert.deepEqual([c.sub, c.scope, c.agents, c.sessions, c.jti], ['app', 'read write', ['support'], ['s1'], r.json.jti]);
    assert.equal(c.exp - c.iat, 600);
    assert.equal(r.json.expires, c.exp);
    assert.equal((await g.ppost('/v1/sessions', { agent_id: 'support' }, { token: r.json.token })).status, 201);
    assert.equal((await g.ppost('/v1/sessions', { agent_id: 'other' }, { token: r.json.token })).status, 401);
    const entry = (await g.get('/audit?limit=1')).json.entries[0];
    assert.equal(entry.action, 'token.mint');
    assert.ok(entry.detail.includes(r.json.jti) && entry.detail.includes('app'));
    const worker = await g.post('/tokens', { sub: 'w', scope: 'agent', agents: ['support'] });
    const w = await g.connect({ role: 'agent', agent_id: 'support' }, worker.json.token);
    assert.equal(w.welcome.type, 'hello_ok');
    await w.close();
  });

  it('never mints wider than the caller', async () => {
    const mint = (token, body) => g.post('/tokens', { sub: 'x', scope: 'read', ...body }, { token });
    const narrow = g.token({ scope: 'admin read', agents: 'support', sessions: 's1,s2' });
    for (const [body, field] of [[{ scope: 'read write' }, 'scope'], [{ scope: 'agent' }, 'scope'], [{ agents: ['other'] }, 'agents'], [{ agents: ['*'] }, 'agents'],
      [{ agents: ['support', 'other'] }, 'agents'], [{ sessions: ['s3'] }, 'sessions'], [{ sessions: ['*'] }, 'sessions'], [{ ttl: 3700 }, 'ttl']]) {
      const r = await mint(narrow, body);
      assert.deepEqual([r.status, r.json.code, r.json.field], [403, 'insufficient_scope', field], JSON.stringify(body));
    }
    const same = await mint(narrow, { scope: 'read admin:read', sessions: ['s1'] });
    assert.equal(same.status, 201);
    assert.deepEqual(claims(same.json.token).agents, ['support'], 'the caller\'s agents are kept');
    assert.ok(claims(same.json.token).exp <= claims(narrow).exp);
    const without = g.token({ scope: 'admin agent', agents: null });
    assert.equal((await mint(without, { scope: 'agent', agents: ['support'] })).json.field, 'agents', 'a token without agents serves none');
    const plain = g.token({ scope: 'admin read' });
    for (const sessions of [['*'], ['s1']]) assert.equal((await mint(plain, { sessions })).json.field, 'sessions', 'one without sessions hands on none');
    const brief = g.token({ scope: 'admin read', ttl: '600' });
    assert.equal(claims((await mint(brief, {})).json.token).exp, claims(brief).exp, 'it ends with the caller\'s');
    const now = Math.floor(Date.now() / 1000);
    const late = g.forge({ sub: 'ops', jti: 'late', scope: 'admin read', aud: 'here', iat: now - 600, exp: now - 20 });
    assert.deepEqual([(await g.get('/stats', { token: late })).status, (await mint(late, {})).status], [200, 401], 'no heirs in the leeway');
    const reader = g.token({ scope: 'admin:read read' });
    assert.equal((await mint(reader, {})).status, 403);
    for (const [body, field] of [[{ sub: '' }, 'sub'], [{ sub: 'x'.repeat(129) }, 'sub'], [{ scope: '' }, 'scope'], [{ scope: 'root' }, 'scope'], [{ scope: 7 }, 'scope'], [{ ttl: 0 }, 'ttl'],
      [{ ttl: 2 * 86400 + 1 }, 'ttl'], [{ ttl: '5' }, 'ttl'], [{ agents: 'support' }, 'agents'], [{ agents: [''] }, 'agents'], [{ agents: [1] }, 'agents'], [{ agents: ['x'.repeat(129)] }, 'agents'], [{ agents: Array(101).fill('a') }, 'agents'], [{ sessions: {} }, 'sessions']]) {
      const r = await mint(g.token(), body);
      assert.deepEqual([r.status, r.json.field], [400, field], JSON.stringify(body));
    }
    assert.equal((await g.post('/tokens', { scope: 'read' })).json.field, 'sub');
  });

  it('revokes a token, and all of a sub: connections end with 4001', async () => {
    const one = (await g.post('/tokens', { sub: 'rita', scope: 'read write' })).json;
    const two = (await g.post('/tokens', { sub: 'rita', scope: 'read write' })).json;
    const first = await g.connect({ agent_id: 'support' }, one.token);
    const second = await g.connect({ agent_id: 'support' }, two.token);
    const now = Date.now() / 1000;
    const r = await g.post('/tokens/revoke', { jti: one.jti });
    assert.equal(r.json.jti, one.jti);
    assert.ok(r.json.until >= now + 2 * 86400 + 120, 'longer than a token made now can be good, with the leeway at both ends');
    assert.equal((await first.closed).code, 4001);
    assert.equal((await g.pget('/v1/sessions/x/events', { token: one.token })).status, 401);
    assert.equal((await g.pget('/v1/sessions/x/events', { token: two.token })).status, 404);
    second.send({ type: 'ping' });
    await second.type('pong');
    assert.equal((await g.post('/tokens/revoke', { sub: 'rita' })).status, 200);
    assert.equal((await second.closed).code, 4001);
    assert.equal((await g.pget('/v1/sessions/x/events', { token: two.token })).status, 401);
    // the sub itself is refused for a while, whenever its token was made
    const later = (await g.post('/tokens', { sub: 'rita', scope: 'read' })).json;
    assert.equal((await g.pget('/v1/sessions/x/events', { token: later.token })).status, 401);
    for (const [body, field] of [[{}, 'jti'], [{ jti: 'a', sub: 'b' }, 'sub'], [{ jti: '' }, 'jti'], [{ sub: 1 }, 'sub']]) assert.equal((await g.post('/tokens/revoke', body)).json.field, field);
    await g.post('/tokens/revoke', { sub: 'zoe' });
    const all = [];
    let next = '';
    do {
      const page = (await g.get(`/tokens/revoked?limit=1${next && `&next=${next}`}`)).json;
      all.push(...page.revoked.map((e) => e.jti || e.sub));
      next = page.next;
    } while (next);
    assert.deepEqual([...all].sort(), [one.jti, 'rita', 'zoe'].sort());
  });

  it('rotates keys, and withdraws one', async () => {
    const [old] = (await g.get('/keys')).json.keys;
    const token = (await g.post('/tokens', { sub: 'olga', scope: 'read write' })).json.token;
    const peer = await g.connect({ agent_id: 'support' }, token);
    const only = await g.delete(`/keys/${old.kid}`);
    assert.equal(only.status, 409);
    const made = await g.post('/keys/rotate');
    assert.equal(made.status, 201);
    assert.equal(made.json.signing, true);
    const keys = (await g.get('/keys')).json.keys;
    assert.deepEqual(keys.map((k) => [k.kid, k.signing]).sort(), [[old.kid, false], [made.json.kid, true]].sort());
    assert.equal((await g.pget('/.well-known/jwks.json', { token: null })).json.keys.length, 2);
    assert.equal((await g.pget('/v1/sessions/x/events', { token })).status, 404, 'tokens of the old key are still good');
    const fresh = (await g.post('/tokens', { sub: 'ops', scope: 'admin read write agent' })).json.token;
    assert.equal(JSON.parse(Buffer.from(fresh.split('.')[0], 'base64url')).kid, made.json.kid);
    assert.equal((await g.delete('/keys/nothing')).status, 404);
    assert.equal((await g.delete(`/keys/${old.kid}`, { token: fresh })).status, 204);
    assert.equal((await peer.closed).code, 4001);
    assert.equal((await g.get('/stats')).status, 401, 'tokens of the withdrawn key are void');
    assert.equal((await g.get('/stats', { token: fresh })).status, 200);
    g.tokens.clear(); // the command line mints with the new key
    assert.equal((await g.get('/stats')).status, 200);
    assert.deepEqual(fs.readdirSync(path.join(g.dir, 'data/keys')).length, 1);
    const entries = (await g.get('/audit?limit=10')).json.entries.map((e) => [e.action, e.detail]);
    assert.ok(entries.some(([a, d]) => a === 'key.rotate' && d === made.json.kid));
    assert.ok(entries.some(([a, d]) => a === 'key.delete' && d === old.kid));
  });

  it('disconnects', async () => {
    const peer = await g.connect({ agent_id: 'support', client: { name: 'probe', version: '1' } });
    const c = (await g.get('/connections')).json.connections.find((x) => x.session_id === peer.welcome.session_id);
    assert.deepEqual([c.sub, c.address, c.agent, c.client.name, c.mode], ['alice', '127.0.0.1', 'support', 'probe', 'ws']);
    assert.equal((await g.delete(`/connections/${c.id}`)).status, 204);
    assert.equal((await peer.closed).code, 1000);
    await eventually(async () => (await g.delete(`/connections/${c.id}`)).status, (s) => s === 404);
    for (const id of ['x', '0000000000000000', 'zzzzzzzzzzzzzzzz', c.id.toUpperCase().replace(/[^A-F]/g, 'A').slice(0, 16)]) assert.equal((await g.delete(`/connections/${id}`)).status, 404);
  });

  it('numbers, settings, metrics', async () => {
    const id = await g.session(3);
    const s = (await g.get('/stats')).json;
    assert.deepEqual([s.public, s.admin], [g.public, g.admin]);
    assert.ok(s.sessions.open >= 1 && s.log.events >= 3 && s.storage.db_bytes > 0);
    const c = (await g.get('/config')).json;
    assert.equal(c.max_token_lifetime_ms, 2 * 86400 * 1000);
    assert.deepEqual(c.agents, ['support', 'other']);
    const key = fs.readFileSync(path.join(g.dir, 'data/keys', fs.readdirSync(path.join(g.dir, 'data/keys'))[0]), 'utf8');
    assert.ok(!JSON.stringify(c).includes(JSON.parse(key).d));
    for (const p of ['/metrics', '/api/v1/metrics']) {
      const m = await g.request('admin', 'GET', p);
      assert.match(m.headers['content-type'], /^text\/plain; version=0\.0\.4/);
      const lines = m.text.trimEnd().split('\n');
      const typed = new Set(lines.filter((l) => l.startsWith('# TYPE ')).map((l) => l.split(' ')[2]));
      for (const l of lines.filter((x) => !x.startsWith('#'))) {
        const parsed = /^([a-z_]+)(\{[a-z_]+="[^"]*"\})? -?[0-9.e+]+$/.exec(l);
        assert.ok(parsed, l);
        assert.ok(typed.has(parsed[1]) || typed.has(parsed[1].replace(/_(bucket|sum|count)$/, '')), l);
      }
      assert.equal(new Set(lines.filter((l) => l.startsWith('# TYPE '))).size, typed.size, 'each metric has one type');
      for (const name of ['connections', 'events_total', 'wal_bytes', 'disk_free_bytes', 'turns_waiting', 'db_bytes', 'sessions']) assert.ok(typed.has(`ebbgate_${name}`), name);
      assert.ok(!m.text.includes(id) && !m.text.includes('alice'), 'no labels without a bound');
    }
    const before = /ebbgate_errors_total\{code="session_not_found"\} (\d+)/.exec((await g.request('admin', 'GET', '/metrics')).text);
    assert.ok(before, 'errors by code');
    await g.get('/sessions/nothing');
    const now = /ebbgate_errors_total\{code="session_not_found"\} (\d+)/.exec((await g.request('admin', 'GET', '/metrics')).text);
    assert.equal(Number(now[1]), Number(before[1]) + 1);
  });

  it('counts the turns that wait, whoever said them', async () => {
    const numbers = async () => {
      const text = (await g.request('admin', 'GET', '/metrics')).text;
      const of = (name) => Number(new RegExp(`^ebbgate_${name} (\\d+)$`, 'm').exec(text)[1]);
      return { waiting: of('turns_waiting'), queued: of('turns_queued_total') };
    };
    const before = await numbers();
    const id = await g.session(3);
    assert.equal((await g.post(`/sessions/${id}/messages`, { content: 'more' })).status, 202);
    assert.deepEqual(await numbers(), { waiting: before.waiting + 4, queued: before.queued + 4 });
    assert.equal((await g.get('/stats')).json.turns.waiting, before.waiting + 4);
    assert.equal((await g.post(`/sessions/${id}/abort`)).status, 200);
    assert.equal((await numbers()).waiting, before.waiting + 3);
    const w = await g.worker('support');
    const { turn, session_id: at } = await w.until((f) => f.type === 'turn' && f.session_id === id);
    const queue = async () => (await g.get(`/sessions/${at}`)).json;
    w.send({ type: 'fail', session_id: at, turn, error: 'later', retry_after_seconds: 3000 });
    const s = await eventually(queue, (x) => x.turns[0].state === 'waiting');
    assert.deepEqual([s.turns.map((t) => t.state), s.queue], [['waiting', 'queued', 'queued'], 3], 'one that waits for its retry is in the queue');
    await w.close();
  });

  it('probes', async () => {
    for (const where of ['admin', 'public']) {
      assert.deepEqual((await g.request(where, 'GET', '/live', { token: null })).json, { status: 'live' });
      const ready = await g.request(where, 'GET', '/ready', { token: null });
      assert.deepEqual([ready.status, ready.json], [200, { status: 'ready', failing: [], warnings: [] }]);
      assert.equal((await g.request(where, 'GET', '/health', { token: null })).json.status, 'ok');
    }
    for (const p of ['/live', '/ready', '/health', '/openapi.yaml']) {
      const [short, long] = await Promise.all([p, `/api/v1${p}`].map((x) => g.request('admin', 'GET', x, { token: null })));
      assert.deepEqual([long.status, long.text], [200, short.text]);
    }
  });

  it('the audit log, newest first, page by page', async () => {
    for (let i = 0; i < 5; i++) await g.put(`/agents/audited-${i}`);
    const ids = [];
    let next = '';
    do {
      const r = (await g.get(`/audit?limit=3${next && `&next=${next}`}`)).json;
      ids.push(...r.entries.map((e) => e.id));
      next = r.next;
    } while (next);
    assert.ok(ids.length > 5);
    assert.deepEqual(ids, [...new Set(ids)].sort((a, b) => b - a));
    const before = ids[0];
    await g.get('/sessions');
    await g.put('/agents/bad', { colour: 1 });
    await g.delete('/agents/nobody');
    await g.put('/agents/x', {}, { token: g.token({ scope: 'admin:read' }) });
    assert.equal((await g.get('/audit?limit=1')).json.entries[0].id, before, 'only what changed something is in it');
  });

  it('backs up while writing goes on', async () => {
    assert.equal((await g.get('/backup')).json.state, 'none');
    const id = await g.session(1);
    const to = path.join(g.dir, 'copy.db');
    let writing = true;
    let acked = 0;
    const writer = (async () => {
      for (let i = 0; writing; i++) {
        const r = await g.ppost(`/v1/sessions/${id}/messages`, { content: `w${i}` }, { token: g.alice() });
        assert.equal(r.status, 202);
        acked = r.json.cursor;
      }
    })();
    const begun = acked;
    const r = await g.post('/backup', { to });
    assert.equal(r.status, 202);
    const done = await eventually(async () => (await g.get('/backup')).json, (b) => b.state !== 'running');
    assert.equal(done.state, 'done', done.error);
    assert.ok(done.pages_total > 0 && done.pages_done === done.pages_total);
    const at = acked;
    await eventually(async () => acked, (n) => n > at); // publishing goes on
    writing = false;
    await writer;
    const dir = path.join(g.dir, 'restored');
    execFileSync(BIN, ['restore', '--data', dir, to]);
    execFileSync(BIN, ['verify', '--data', dir]);
    assert.ok(begun <= acked);
    assert.equal((await g.post('/backup', { to })).json.field, 'to', 'it exists');
    for (const bad of ['copy.db', '', '/', `${g.dir}/`, `${g.dir}/none/copy.db`, 7, undefined]) {
      const x = await g.post('/backup', { to: bad });
      assert.deepEqual([x.status, x.json.field], [400, 'to'], String(bad));
    }
    const both = await Promise.all([g.post('/backup', { to: `${to}.2` }), g.post('/backup', { to: `${to}.3` })]);
    assert.deepEqual(both.map((b) => b.status).sort(), [202, 409]);
    await eventually(async () => (await g.get('/backup')).json, (b) => b.state === 'done');
  });

  it('a checkpoint', async () => {
    const r = await g.post('/checkpoint');
    assert.equal(r.status, 200);
    assert.ok(r.json.wal_bytes >= 0);
  });
});

describe('keys from a file', () => {
  it('are not rotated by the API', async () => {
    const first = await new Gate().start();
    await first.stop();
    const dir = path.join(first.dir, 'data/keys');
    const key = path.join(first.dir, 'my.key');
    fs.renameSync(path.join(dir, fs.readdirSync(dir)[0]), key);
    const g = new Gate(['--key_file', key]);
    g.token = () => execFileSync(BIN, ['token', '--data', path.join(g.dir, 'data'), '--key', key, '--sub', 'ops', '--scope', 'admin'], { encoding: 'utf8' }).trim();
    await g.start();
    const r = await g.post('/keys/rotate');
    assert.deepEqual([r.status, r.json.code], [409, 'conflict']);
    await g.stop();
    g.kill();
    first.kill();
  });
});

describe('reload', () => {
  it('is in force for the next request', async () => {
    const g = new Gate();
    const file = path.join(g.dir, 'gate.conf');
    const settings = (n) => fs.writeFileSync(file, `max_payload = ${n};\nallowed_origins = ["https://n${n}.example"];\n`);
    settings(2000);
    g.args = ['-c', file];
    await g.start();
    const id = await g.session();
    const say = (n) => g.ppost(`/v1/sessions/${id}/messages`, { content: 'x'.repeat(n) }, { token: g.alice() });
    const origin = async (n) => (await g.pget('/live', { headers: { Origin: `https://n${n}.example` } })).status;
    assert.deepEqual([(await say(3000)).status, await origin(2000), await origin(5000)], [413, 200, 403]);
    settings(5000);
    g.process.kill('SIGHUP');
    await eventually(async () => g.log, (text) => text.includes('reload.done'));
    assert.deepEqual([(await say(3000)).status, await origin(2000), await origin(5000)], [202, 403, 200]);
    assert.equal((await g.get('/config')).json.max_payload, 5000);
    assert.equal(await g.stop(), 0);
    g.kill();
  });
});

describe('drain', () => {
  it('by the API: says so, lets the turn end, tells clients, exits 0', async () => {
    const g = await new Gate(['--drain_timeout', '10s']).start();
    const id = await g.session(1);
    const w = await g.worker();
    const turn = await w.type('turn');
    const peer = await g.connect({ agent_id: 'support', session_id: id });
    const r = await g.post('/drain');
    assert.deepEqual([r.status, r.json], [202, { draining: true }]);
    const ready = await eventually(() => g.request('public', 'GET', '/ready', { token: null }), (x) => x.status === 503);
    assert.deepEqual(ready.json.failing, ['draining']);
    assert.equal((await g.request('admin', 'GET', '/ready', { token: null })).status, 503);
    assert.equal((await g.get('/ready')).status, 503);
    assert.equal((await g.post('/drain')).status, 202, 'a second one does not cut it short');
    for (const [p, body] of [['/v1/sessions', { agent_id: 'support' }], [`/v1/sessions/${id}/messages`, { content: 'x' }]]) {
      const late = await g.ppost(p, body, { token: g.alice() });
      assert.deepEqual([late.status, late.json.code, late.json.next_step], [503, 'draining', 'wait_then_retry']);
      assert.ok(Number(late.headers['retry-after']) >= 0);
    }
    const stream = await g.pget(`/v1/sessions/${id}/events`, { token: g.alice(), headers: { Accept: 'text/event-stream' } });
    assert.equal(stream.status, 503);
    const browser = g.pget(`/v1/sessions/${id}/events`, { token: g.alice(), headers: { Accept: 'text/event-stream', 'Sec-Fetch-Mode': 'cors' } });
    await assert.rejects(browser, /socket hang up/, 'an EventSource would take an answer for the end');
    w.send({ type: 'final', session_id: id, turn: turn.turn, content: 'in time' });
    await peer.until((f) => f.type === 'response' && f.status === 'final');
    await peer.type('reconnect');
    assert.equal((await peer.closed).code, 1012);
    assert.equal(await g.exited, 0);
    g.kill();
  });
});
