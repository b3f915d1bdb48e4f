// A disk that takes nothing, as HTTP tells of it; and one with little room.
'use strict';
const { describe, it, before, after } = require('node:test');
const assert = require('node:assert/strict');
const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { Gate, eventually } = require('./gate.js');

// From now on every write to a file fails (or none does).
function writable(g, yes) {
  execFileSync('prlimit', ['--pid', String(g.process.pid), `--fsize=${yes ? 'unlimited' : '0'}:`]);
}

describe('a disk that takes nothing', () => {
  let g, id, dead, worker;
  before(async () => {
    g = await new Gate().start();
    id = await g.session(3);
    dead = await g.session(1, { agent: 'other' });
    worker = await g.worker('other');
    await worker.type('turn');
    worker.send({ type: 'fail', session_id: dead, turn: 1, error: 'no', retry: false });
    await eventually(() => g.get('/turns?state=dead'), (r) => r.json.turns.length === 1);
    worker.close();
    await eventually(() => g.get('/connections'), (r) => r.json.connections.length === 0);
    g.token({ sub: 'someone' });
    writable(g, false);
  });
  after(async () => { assert.equal(await g.stop(), 0); g.kill(); });

  function unavailable(r, what) {
    assert.deepEqual([r.status, r.json.code, r.json.next_step, r.headers['retry-after']], [503, 'storage_unavailable', 'wait_then_retry', '1'], `${what}: ${r.text}`);
    assert.match(r.headers['content-type'], /^application\/problem\+json/);
  }

  it('refuses what would write, for clients', async () => {
    const token = g.alice();
    unavailable(await g.ppost('/v1/sessions', { agent_id: 'support' }, { token }), 'create');
    unavailable(await g.ppost(`/v1/sessions/${id}/messages`, { content: 'x' }, { token, headers: { 'Idempotency-Key': 'k1' } }), 'message');
    unavailable(await g.ppost(`/v1/sessions/${id}/abort`, {}, { token }), 'abort');
    const peer = await g.connect({ agent_id: 'support', session_id: id });
    assert.equal(peer.welcome.type, 'hello_ok', 'resuming goes on');
    peer.send({ type: 'message', content: 'x', message_id: 'm1' });
    const e = await peer.type('error');
    assert.deepEqual([e.code, e.ref, e.retry_after_seconds], ['storage_unavailable', 'm1', 1]);
    await peer.close();
    const fresh = await g.connect({ agent_id: 'support' });
    assert.deepEqual([fresh.welcome.type, fresh.welcome.code], ['hello_error', 'storage_unavailable']);
    assert.equal((await fresh.closed).code, 1013);
  });

  it('refuses what would write, for operators', async () => {
    for (const [method, target, body] of [
      ['put', '/agents/new', {}], ['delete', '/agents/other'], ['post', `/sessions/${id}/messages`, { content: 'x' }], ['post', `/sessions/${id}/abort`, {}],
      ['post', `/sessions/${id}/fork`, { at: 1 }], ['post', `/sessions/${id}/close`, {}], ['delete', `/sessions/${id}`], ['post', `/turns/${dead}/1/retry`, {}],
      ['post', '/tokens', { sub: 'x', scope: 'read' }], ['post', '/tokens/revoke', { sub: 'x' }], ['post', '/backup', { to: path.join(g.dir, 'copy.db') }],
    ]) {
      const r = method === 'delete' ? await g.delete(target) : await g[method](target, body);
      unavailable(r, `${method} ${target}`);
    }
    assert.ok((await g.post('/keys/rotate', {})).status >= 500, 'no key is made that is not on disk');
    assert.equal((await g.get('/keys')).json.keys.length, 1);
  });

  it('says so, and goes on reading', async () => {
    for (const where of ['public', 'admin']) {
      const r = await g.request(where, 'GET', '/ready', { token: null });
      assert.deepEqual([r.status, r.json.status, r.json.failing], [503, 'unavailable', ['storage']]);
      assert.deepEqual([(await g.request(where, 'GET', '/health', { token: null })).json.status], ['degraded']);
      assert.equal((await g.request(where, 'GET', '/live', { token: null })).status, 200);
    }
    assert.match((await g.get('/metrics')).text, /^ebbgate_storage_ok 0$/m);
    assert.match(g.log, /storage\.failed/);
    const page = await g.pget(`/v1/sessions/${id}/events`, { token: g.alice(), headers: { Accept: 'application/json' } });
    assert.deepEqual(page.json.events.map((e) => e.data.content), ['m1', 'm2', 'm3']);
    assert.equal((await g.get('/sessions')).json.sessions.length, 2);
  });

  it('takes it all again as soon as the disk does', async () => {
    writable(g, true);
    const ready = await eventually(() => g.request('public', 'GET', '/ready', { token: null }), (r) => r.status === 200);
    assert.deepEqual(ready.json.failing, []);
    const said = await g.ppost(`/v1/sessions/${id}/messages`, { content: 'x' }, { token: g.alice(), headers: { 'Idempotency-Key': 'k1' } });
    assert.deepEqual([said.status, said.json.cursor, said.json.duplicate], [202, 4, false], 'what was refused was not stored');
    assert.equal((await g.get(`/sessions/${id}`)).json.state, 'open');
    assert.equal((await g.post(`/turns/${dead}/1/retry`, {})).status, 202);
    assert.equal((await g.put('/agents/new', {})).status, 201);
  });
});

describe('a disk with little room', () => {
  it('is warned of, and goes on', async (t) => {
    const { bavail, bsize } = fs.statfsSync('/tmp');
    const most = 1099511627776;
    if (bavail * bsize >= most) return t.skip('more than a tebibyte is free');
    const g = await new Gate(['--min_free_bytes', String(most)]).start();
    try {
      for (const probe of ['/ready', '/health']) {
        const r = await g.request('public', 'GET', probe, { token: null });
        assert.deepEqual([r.status, r.json.warnings, r.json.failing], [200, ['disk'], []]);
      }
      assert.match(g.log, /disk\.low/);
      assert.match((await g.get('/metrics')).text, /^ebbgate_disk_free_bytes [1-9]\d*$/m);
      assert.ok(await g.session(1), 'a warning refuses nothing');
    } finally {
      assert.equal(await g.stop(), 0);
      g.kill();
    }
  });
});
