// Plain HTTP for clients, on the public listener.
'use strict';
const { describe, it, before, after } = require('node:test');
const assert = require('node:assert/strict');
const http = require('node:http');
const { spawn } = require('node:child_process');
const { Gate } = require('./gate.js');

// An event stream as curl sees it.
class Stream {
  constructor(url, { token, headers = [], args = [] } = {}) {
    const all = ['-N', '-s', '-S', '-i', '--max-time', '30', '-H', 'Accept: text/event-stream', ...args];
    if (token) all.push('-H', `Authorization: Bearer ${token}`);
    for (const h of headers) all.push('-H', h);
    this.process = spawn('curl', [...all, url], { stdio: ['ignore', 'pipe', 'inherit'] });
    this.text = '';
    this.waiters = [];
    this.process.stdout.on('data', (d) => { this.text += d; this.look(); });
    this.ended = new Promise((done) => this.process.on('close', done));
  }

  look() {
    for (const w of [...this.waiters]) {
      if (!w.want(this)) continue;
      this.waiters.splice(this.waiters.indexOf(w), 1);
      clearTimeout(w.timer);
      w.done(this);
    }
  }

  until(want) {
    return new Promise((done, failed) => {
      const timer = setTimeout(() => failed(new Error(`did not come: ${this.text}`)), 10000);
      this.waiters.push({ want, done, timer });
      this.look();
    });
  }

  get body() { return this.text.slice(this.text.indexOf('\r\n\r\n') + 4); }

  // Whole events that have come: {id, event, data}.
  get events() {
    return this.body.split('\n\n').slice(0, -1).map((block) => {
      const e = {};
      for (const line of block.split('\n')) {
        const at = line.indexOf(':');
        if (at > 0) e[line.slice(0, at)] = (e[line.slice(0, at)] === undefined ? '' : `${e[line.slice(0, at)]}\n`) + line.slice(at + 1).trimStart();
      }
      return e;
    }).filter((e) => e.event);
  }

  async close() { this.process.kill(); await this.ended; }
}

describe('client', () => {
  let g;
  let alice;
  let bob;
  const url = (id, q = '') => `http://${g.public}/v1/sessions/${id}/events${q}`;
  before(async () => {
    g = await new Gate(['--max_payload', '65536']).start();
    alice = g.alice();
    bob = g.token({ sub: 'bob', scope: 'read write', agents: null });
  });
  after(async () => { assert.equal(await g.stop(), 0); g.kill(); });

  it('begins sessions', async () => {
    const a = await g.ppost('/v1/sessions', { agent_id: 'support' }, { token: alice });
    assert.equal(a.status, 201);
    assert.equal(a.json.cursor, 0);
    const b = await g.ppost('/v1/sessions', { agent_id: 'support', session_id: 'my:own-1.x_y' }, { token: alice });
    assert.deepEqual([b.status, b.json.session_id], [201, 'my:own-1.x_y']);
    const again = await g.ppost('/v1/sessions', { agent_id: 'support', session_id: 'my:own-1.x_y' }, { token: alice });
    assert.deepEqual([again.status, again.json.session_id], [200, 'my:own-1.x_y']);
    const other = await g.ppost('/v1/sessions', { agent_id: 'other', session_id: 'my:own-1.x_y' }, { token: alice });
    assert.deepEqual([other.status, other.json.code], [401, 'auth_unauthorized']);
    const theirs = await g.ppost('/v1/sessions', { agent_id: 'support', session_id: 'my:own-1.x_y' }, { token: bob });
    assert.deepEqual([theirs.status, theirs.json.code], [401, 'auth_unauthorized']);
    const nobody = await g.ppost('/v1/sessions', { agent_id: 'nobody' }, { token: alice });
    assert.deepEqual([nobody.status, nobody.json.code, nobody.json.field], [404, 'agent_not_found', 'agent_id']);
    const bounded = await g.ppost('/v1/sessions', { agent_id: 'support' }, { token: g.token({ sub: 'c', scope: 'write', agents: 'other' }) });
    assert.equal(bounded.status, 401);
    for (const [body, field] of [[{}, 'agent_id'], [{ agent_id: '' }, 'agent_id'], [{ agent_id: 7 }, 'agent_id'], [{ agent_id: 'x'.repeat(129) }, 'agent_id'],
      [{ agent_id: 'support', session_id: 'a b' }, 'session_id'], [{ agent_id: 'support', session_id: 'x'.repeat(129) }, 'session_id'], [{ agent_id: 'support', session_id: '' }, 'session_id']]) {
      const r = await g.ppost('/v1/sessions', body, { token: alice });
      assert.deepEqual([r.status, r.json.code, r.json.field], [400, 'invalid_request', field], JSON.stringify(body));
    }
    await g.post('/sessions/my:own-1.x_y/close');
    const closed = await g.ppost('/v1/sessions', { agent_id: 'support', session_id: 'my:own-1.x_y' }, { token: alice });
    assert.deepEqual([closed.status, closed.json.code], [409, 'session_closed']);
  });

  it('says, once for each Idempotency-Key', async () => {
    const id = await g.session();
    const path = `/v1/sessions/${id}/messages`;
    const say = (content, key, token = alice) => g.ppost(path, { content }, { token, headers: key ? { 'Idempotency-Key': key } : {} });
    const one = await say('hi', 'k-1');
    assert.deepEqual(one.json, { session_id: id, message_id: 'k-1', cursor: 1, turn: 1, duplicate: false });
    const many = await Promise.all(Array.from({ length: 20 }, () => say('hi', 'k-1')));
    for (const r of many) assert.deepEqual(r.json, { ...one.json, duplicate: true });
    assert.equal((await say('other', 'k-1')).json.code, 'id_conflict');
    assert.equal((await say('hi')).json.cursor, 2);
    const page = (await g.pget(`/v1/sessions/${id}/events`, { token: alice })).json;
    assert.deepEqual(page.events.map((e) => [e.cursor, e.source, e.data.message_id]), [[1, 'client:alice', 'k-1'], [2, 'client:alice', undefined]]);
    // blanks around a header's value are no part of it
    const around = await g.ppost(path, { content: 'hi' }, { token: null, headers: { Authorization: `Bearer ${alice}  `, 'Idempotency-Key': '  k-1 ' } });
    assert.deepEqual(around.json, { ...one.json, duplicate: true });
    // the same id over the WebSocket is the same message
    const peer = await g.connect({ agent_id: 'support', session_id: id });
    peer.send({ type: 'message', content: 'hi', message_id: 'k-1' });
    const r = await peer.until((f) => f.status === 'accepted');
    assert.deepEqual([r.cursor, r.duplicate], [1, true]);
    await peer.close();
    // no capabilities here, so no abort in disguise
    assert.deepEqual((await say('/stop')).json.cursor, 3);
    assert.equal((await say('x', 'k-2', bob)).status, 401);
    assert.equal((await say('x', 'k-3', g.token({ sub: 'alice', scope: 'write', agents: 'other' }))).status, 401);
    assert.equal((await say('x', 'k-4', g.token({ sub: 'alice', scope: 'write', agents: 'other,support' }))).status, 202);
    assert.equal((await say('x', 'k-5', g.token({ sub: 'carol', scope: 'write', agents: null, sessions: id }))).status, 202);
    assert.equal((await g.ppost('/v1/sessions/nothing/messages', { content: 'x' }, { token: alice })).json.code, 'session_not_found');
    for (const body of [{}, { content: null }, { content: '' }, { content: 'x', message_id: 'k' }, { content: 'x', metadata: [] }]) assert.equal((await g.ppost(path, body, { token: alice })).status, 400);
  });

  it('keeps a traceparent', async () => {
    const id = await g.session();
    const trace = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
    await g.ppost(`/v1/sessions/${id}/messages`, { content: 'x' }, { token: alice, headers: { traceparent: trace } });
    await g.ppost(`/v1/sessions/${id}/messages`, { content: 'x' }, { token: alice, headers: { traceparent: 'nonsense' } });
    const { events } = (await g.pget(`/v1/sessions/${id}/events`, { token: alice })).json;
    assert.deepEqual(events.map((e) => e.traceparent), [trace, undefined]);
    // what a later version adds is kept, as by WebSocket
    const later = ['cc' + trace.slice(2), `cc${trace.slice(2)}-more`, `${trace}-more`, 'ff' + trace.slice(2)];
    for (const traceparent of later) await g.ppost(`/v1/sessions/${id}/messages`, { content: 'x' }, { token: alice, headers: { traceparent } });
    const kept = (await g.pget(`/v1/sessions/${id}/events?since=2`, { token: alice })).json.events;
    assert.deepEqual(kept.map((e) => e.traceparent), [later[0], later[1], undefined, undefined]);
  });

  it('aborts', async () => {
    const id = await g.session(1);
    const r = await g.ppost(`/v1/sessions/${id}/abort`, undefined, { token: alice });
    assert.deepEqual([r.status, r.json.status, r.json.turn], [200, 'aborted', 1]);
    const again = await g.ppost(`/v1/sessions/${id}/abort`, {}, { token: alice });
    assert.deepEqual([again.status, again.json.status], [200, 'no_active_turn']);
    assert.equal((await g.ppost(`/v1/sessions/${id}/abort`, {}, { token: bob })).status, 401);
    assert.equal((await g.ppost('/v1/sessions/nothing/abort', {}, { token: alice })).status, 404);
  });

  it('reads pages', async () => {
    const id = await g.session(10);
    const read = async (q, token = alice) => (await g.pget(`/v1/sessions/${id}/events${q}`, { token })).json;
    assert.deepEqual((await read('?since=7')).events.map((e) => e.cursor), [8, 9, 10]);
    const first = await read('?limit=4');
    assert.deepEqual([first.cursor, first.oldest_cursor, first.events.length], [10, 1, 4]);
    assert.deepEqual((await read(`?limit=4&next=${first.next}`)).events.map((e) => e.cursor), [5, 6, 7, 8]);
    assert.equal((await g.pget(`/v1/sessions/${id}/events?token=${alice}`, { token: null })).status, 200);
    // What the header says to somebody in front of the gateway is no token.
    for (const Authorization of ['Basic b3BzOm9wcw==', 'Bearer '])
      assert.equal((await g.pget(`/v1/sessions/${id}/events?token=${alice}`, { token: null, headers: { Authorization } })).status, 200);
    assert.equal((await g.pget(`/v1/sessions/${id}/events?token=${alice}`, { token: 'x' })).status, 401);
    assert.equal((await g.pget(`/v1/sessions/${id}/events`, { token: bob })).status, 401);
    assert.equal((await g.pget('/v1/sessions/nothing/events', { token: alice })).status, 404);
    const shared = g.token({ sub: 'carol', scope: 'read', agents: null, sessions: id });
    assert.equal((await read('', shared)).events.length, 10);
    const elsewhere = g.token({ sub: 'alice', scope: 'read', agents: 'other' });
    assert.equal((await g.pget(`/v1/sessions/${id}/events`, { token: elsewhere })).status, 401);
  });

  it('streams with curl -N: replay, then live, each event once', async () => {
    const id = await g.session(3);
    const s = new Stream(url(id, '?since=1'), { token: alice });
    await s.until(() => s.events.length === 2);
    assert.match(s.text, /^HTTP\/1\.1 200 OK\r\n/);
    assert.match(s.text, /Content-Type: text\/event-stream\r\n/i);
    const w = await g.worker();
    const turns = [];
    for (let i = 0; i < 1; i++) turns.push(await w.until((f) => f.type === 'turn' && f.session_id === id));
    w.send({ type: 'emit', session_id: id, turn: turns[0].turn, event: 'token_stream', data: { text: 'a\nb\r\u2028' } });
    w.send({ type: 'final', session_id: id, turn: turns[0].turn, content: 'done' });
    await s.until(() => s.events.length >= 4);
    const stored = (await g.pget(`/v1/sessions/${id}/events`, { token: alice })).text;
    const got = s.events.slice(0, 4);
    assert.deepEqual(got.map((e) => [e.id, e.event]), [['2', 'message'], ['3', 'message'], ['4', 'token_stream'], ['5', 'response']]);
    for (const e of got) assert.ok(stored.includes(e.data), `not as stored: ${e.data}`);
    // resume where it stopped
    await s.close();
    const again = new Stream(url(id, '?since=0'), { token: alice, headers: ['Last-Event-ID: 4'] });
    await again.until(() => again.events.length >= 1);
    assert.equal(again.events[0].id, '5');
    await again.close();
    await w.close();
  });

  it('streams live only without a position, and from a token in the query', async () => {
    const id = await g.session(3);
    const s = new Stream(url(id, `?token=${alice}`));
    await s.until(() => s.body.includes(':'));
    const said = await g.ppost(`/v1/sessions/${id}/messages`, { content: 'now' }, { token: alice });
    await s.until(() => s.events.length === 1);
    assert.equal(s.events[0].id, String(said.json.cursor));
    assert.ok(!g.log.includes(alice), 'the token is in the log');
    await s.close();
  });

  it('tells a gap', async () => {
    const id = await g.session(3);
    for (const [q, reason] of [['?since=99', 'cursor_ahead'], ['?since=1&epoch=other', 'epoch_changed']]) {
      const s = new Stream(url(id, q), { token: alice });
      await s.until(() => s.events.length >= 1);
      assert.equal(s.events[0].event, 'resync');
      const data = JSON.parse(s.events[0].data);
      assert.equal(data.reason, reason);
      assert.equal(data.cursor, 3);
      await s.close();
    }
  });

  it('tells a gap of a closed session, too', async () => {
    const id = await g.session(3);
    await g.post(`/sessions/${id}/close`);
    const { epoch, cursor } = (await g.get(`/sessions/${id}`)).json;
    const s = new Stream(url(id, `?since=${cursor}&epoch=other`), { token: alice });
    await s.ended;
    assert.deepEqual(s.events.map((e) => [e.event, JSON.parse(e.data).reason]), [['resync', 'epoch_changed']]);
    const nothing = [[`?since=${cursor}&epoch=${epoch}`], ['?epoch=other'], ['?epoch=other', `Last-Event-ID: ${cursor}`]]; // an EventSource was told
    for (const [q, ...headers] of nothing) {
      const t = new Stream(url(id, q), { token: alice, headers });
      await t.ended;
      assert.match(t.text, /^HTTP\/1.1 204 /, q);
    }
  });

  it('ends a stream when the session closes, and when the token is revoked', async () => {
    const id = await g.session(1);
    const s = new Stream(url(id, '?since=0'), { token: alice });
    await s.until(() => s.events.length === 1);
    await g.post(`/sessions/${id}/close`);
    await s.ended;
    assert.equal(s.events.at(-1).event, 'session_end');
    const token = g.token({ sub: 'short', scope: 'read write', agents: null });
    const other = await g.session(0, { token });
    const t = new Stream(url(other), { token });
    await t.until(() => t.body.includes(':'));
    await g.post('/tokens/revoke', { sub: 'short' });
    await t.ended;
  });

  it('a closed session: what is left, the end, and then nothing more', async () => {
    const id = await g.session(2);
    await g.post(`/sessions/${id}/close`);
    const s = new Stream(url(id, '?since=1'), { token: alice });
    await s.ended;
    const head = (await g.get(`/sessions/${id}`)).json.cursor;
    assert.deepEqual(s.events.map((e) => Number(e.id)), Array.from({ length: head - 1 }, (_, i) => i + 2));
    assert.equal(s.events.at(-1).event, 'session_end');
    for (const headers of [{ 'Last-Event-ID': String(head) }, {}]) {
      const Accept = 'text/event-stream';
      assert.equal((await g.pget(`/v1/sessions/${id}/events`, { token: alice, headers: { Accept, ...headers } })).status, 204);
      assert.equal((await g.get(`/sessions/${id}/events`, { headers: { Accept, ...headers } })).status, 204);
    }
  });

  it('an operator ends a stream', async () => {
    const id = await g.session();
    const s = new Stream(url(id), { token: alice });
    await s.until(() => s.body.includes(':'));
    const [c] = (await g.get(`/connections?session=${id}`)).json.connections;
    assert.equal((await g.delete(`/connections/${c.id}`)).status, 204);
    await s.ended;
  });

  it('the end of the gateway does not wait for slow clients', async () => {
    const net = require('node:net');
    const l = await new Gate().start();
    const id = await l.session();
    const [host, port] = l.public.split(':');
    const slow = net.connect({ host, port });
    slow.on('error', () => {});
    slow.write(`POST /v1/sessions/${id}/messages HTTP/1.1\r\nHost: ${l.public}\r\nAuthorization: Bearer ${l.alice()}\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n`);
    await new Promise((done) => slow.once('data', done));
    const at = Date.now();
    assert.equal(await l.stop(), 0);
    assert.ok(Date.now() - at < 8000, `took ${Date.now() - at} ms`);
    l.kill();
  });

  it('refuses a stream as it refuses a page', async () => {
    const id = await g.session();
    for (const [target, token, status] of [[id, bob, 401], ['nothing', alice, 404], [id, null, 401]]) {
      const r = await g.pget(`/v1/sessions/${target}/events`, { token, headers: { Accept: 'text/event-stream' } });
      assert.equal(r.status, status);
    }
    for (const [q, headers, field] of [['?limit=3', {}, 'limit'], ['?since=x', {}, 'since'], ['', { 'Last-Event-ID': 'x' }, 'Last-Event-ID'], ['', { 'Last-Event-ID': String(2 ** 53) }, 'Last-Event-ID']]) {
      const r = await g.pget(`/v1/sessions/${id}/events${q}`, { token: alice, headers: { Accept: 'text/event-stream', ...headers } });
      assert.deepEqual([r.status, r.json.field], [400, field]);
    }
  });

  it('an operator follows any session', async () => {
    const id = await g.session(2);
    for (const scope of ['admin', 'admin:read']) {
      const token = g.token({ sub: 'eve', scope, agents: null });
      const s = new Stream(`http://${g.admin}/api/v1/sessions/${id}/events?since=0`, { token });
      await s.until(() => s.events.length === 2);
      const seen = (await g.get(`/connections?session=${id}`)).json.connections;
      assert.deepEqual(seen.map((c) => [c.sub, c.mode, c.role]), [['eve', 'sse', 'client']]);
      await s.close();
    }
  });

  it('an operator is told of another log as a client is', async () => {
    const id = await g.session(3);
    const follow = (since, epoch) => new Stream(`http://${g.admin}/api/v1/sessions/${id}/events?since=${since}&epoch=${epoch}`, { token: g.token() });
    const { epoch } = (await g.get(`/sessions/${id}`)).json;
    const s = follow(1, epoch);
    await s.until(() => s.events.length === 2);
    assert.deepEqual(s.events.map((e) => e.event), ['message', 'message']);
    await s.close();
    await g.delete(`/sessions/${id}`);
    await g.ppost('/v1/sessions', { agent_id: 'support', session_id: id }, { token: alice });
    for (let i = 0; i < 4; i++) await g.ppost(`/v1/sessions/${id}/messages`, { content: 'new' }, { token: alice });
    const t = follow(3, epoch);
    await t.until(() => t.events.length === 1);
    const { epoch: now } = (await g.get(`/sessions/${id}`)).json;
    assert.deepEqual([t.events[0].event, JSON.parse(t.events[0].data)], ['resync', { reason: 'epoch_changed', oldest_cursor: 1, cursor: 4, epoch: now }]);
    await t.close();
    await g.post(`/sessions/${id}/close`);
    const closed = follow((await g.get(`/sessions/${id}`)).json.cursor, epoch);
    await closed.ended;
    assert.deepEqual(closed.events.map((e) => e.event), ['resync']);
  });

  it('two hundred streams cost no thread', async () => {
    const fs = require('node:fs');
    const threads = () => fs.readdirSync(`/proc/${g.process.pid}/task`).length;
    const id = await g.session();
    const before = threads();
    const streams = Array.from({ length: 4 }, () => new Stream(url(id), { token: alice }));
    const open = await Promise.all(Array.from({ length: 200 }, () => new Promise((done, failed) => {
      http.get(url(id), { agent: false, headers: { Accept: 'text/event-stream', Authorization: `Bearer ${alice}` } }, (res) => {
        const one = { res, text: '' };
        res.setEncoding('utf8');
        res.on('data', (d) => { one.text += d; if (one.text.startsWith(':')) done(one); });
        res.on('error', () => {});
      }).on('error', failed);
    })));
    await Promise.all(streams.map((s) => s.until(() => s.body.includes(':'))));
    assert.equal(threads(), before);
    await g.ppost(`/v1/sessions/${id}/messages`, { content: 'to all' }, { token: alice });
    await Promise.all(open.map((one) => new Promise((done) => {
      const look = () => (one.text.includes('event: message') ? done() : one.res.once('data', look));
      look();
    })));
    for (const one of open) one.res.destroy();
    await Promise.all(streams.map((s) => s.close()));
  });

  it('limits of a sub', async () => {
    const l = await new Gate(['--message_rate_per_sub', '3', '--max_sessions_per_sub', '2', '--max_queued_turns', '4']).start();
    const token = l.alice();
    const id = await l.session();
    await l.session();
    const third = await l.ppost('/v1/sessions', { agent_id: 'support' }, { token });
    assert.deepEqual([third.status, third.json.code, third.json.next_step], [429, 'rate_limited', 'wait_then_retry']);
    assert.deepEqual([third.json.retry_after_seconds, third.headers['retry-after']], [60, '60'], 'as by WebSocket');
    assert.match(third.json.detail, /sessions/);
    const said = await Promise.all(Array.from({ length: 20 }, (_, i) => l.ppost(`/v1/sessions/${id}/messages`, { content: 'x' }, { token, headers: { 'Idempotency-Key': `k${i}` } })));
    const refused = said.filter((r) => r.status === 429);
    assert.ok(refused.length > 0);
    for (const r of refused) assert.ok(['rate_limited', 'queue_full'].includes(r.json.code), r.text);
    assert.equal((await l.get(`/sessions/${id}`)).json.cursor, said.length - refused.length, 'what was refused is not stored');
    // the operator has no rate, but the queue of a session is bounded for everybody
    let last;
    for (let i = 0; i < 5; i++) last = await l.post(`/sessions/${id}/messages`, { content: 'x' });
    assert.deepEqual([last.status, last.json.code], [429, 'queue_full']);
    assert.equal((await l.get(`/sessions/${id}`)).json.queue, 4);
    assert.equal(await l.stop(), 0);
    l.kill();
  });

  it('a stream that comes too fast is told so', async () => {
    const l = await new Gate(['--handshake_rate', '1']).start();
    after(() => l.kill());
    const id = await l.session();
    const get = () => new Promise((done, fail) => {
      http.get(`http://${l.public}/v1/sessions/${id}/events`, { agent: false, headers: { Accept: 'text/event-stream', Authorization: `Bearer ${l.alice()}` } }, (res) => {
        if (res.statusCode === 200) return done({ status: 200, close: () => res.destroy() });
        res.on('data', (text) => done({ status: res.statusCode, json: JSON.parse(text), close: () => res.destroy() }));
      }).on('error', fail);
    });
    const said = await Promise.all(Array.from({ length: 8 }, get));
    assert.deepEqual(said.map((r) => r.status).sort()[0], 200);
    const refused = said.filter((r) => r.status !== 200);
    assert.ok(refused.length > 0);
    for (const r of refused) assert.deepEqual([r.status, r.json.code], [429, 'rate_limited']);
    for (const r of said) r.close();
    l.kill();
  });

  it('a type of weight 0 is not wanted', async () => {
    const id = await g.session(1);
    const get = (Accept) => g.pget(`/v1/sessions/${id}/events`, { token: alice, headers: { Accept } });
    for (const Accept of ['text/event-stream;q=0', 'text/event-stream; Q=0.000, application/json', 'application/x-ndjson;q=0.0, */*;q=0.1']) {
      const r = await get(Accept);
      if (Accept.includes('application/json') || Accept.includes('*/*')) assert.deepEqual([r.status, r.json.events.length], [200, 1], Accept);
      else assert.equal(r.status, 406, Accept);
    }
  });

  it('jwks', async () => {
    const r = await g.pget('/.well-known/jwks.json', { token: null });
    assert.equal(r.json.keys.length, 1);
    assert.ok(!r.text.includes('"d"'));
  });
});
