// Sessions, their events, agents and turns, as operators see and change them.
'use strict';
const { describe, it, before, after } = require('node:test');
const assert = require('node:assert/strict');
const { once } = require('node:events');
const net = require('node:net');
const { Gate, eventually } = require('./gate.js');

describe('sessions', () => {
  let g;
  before(async () => { g = await new Gate(['--max_attempts', '1', '--max_payload', '65536']).start(); });
  after(async () => { assert.equal(await g.stop(), 0); g.kill(); });
  const last = async (action) => (await g.get('/audit?limit=500')).json.entries.find((e) => e.action === action);

  it('lists with filters', async () => {
    const before = Date.now() / 1000 - 1;
    const a = await g.session(1);
    const b = await g.session(0, { agent: 'other', token: g.token({ sub: 'bob', scope: 'read write', agents: null }) });
    const ids = async (q) => (await g.get(`/sessions?limit=500&${q}`)).json.sessions.map((s) => s.id);
    assert.ok((await ids('')).includes(a) && (await ids('')).includes(b));
    assert.ok((await ids('agent=other')).includes(b) && !(await ids('agent=other')).includes(a));
    assert.ok((await ids('owner=alice')).includes(a) && !(await ids('owner=alice')).includes(b));
    assert.deepEqual(await ids(`q=${a.slice(-12)}`), [a]);
    assert.deepEqual(await ids('q=%25'), []); // no wildcard
    assert.deepEqual(await ids('agent=nobody'), []);
    assert.ok((await ids(`active_since=${before.toFixed(3)}`)).includes(a));
    assert.deepEqual(await ids(`active_since=${Math.floor(Date.now() / 1000) + 3600}`), []);
    await g.post(`/sessions/${b}/close`);
    assert.deepEqual(await ids('state=closed&owner=bob'), [b]);
    assert.ok(!(await ids('state=open')).includes(b));
    for (const q of ['state=new', 'active_since=yesterday', 'active_since=1.2345', 'active_since=9999999999999999', 'limit=0', 'limit=501', 'limit=x', 'limit=', 'limit=1e2', 'lim=5', 'sessions=x',
      `q=${'x'.repeat(129)}`, 'next=x', 'next=', 'next=czoxOjI6Mw', `next=${Buffer.from('s:1:2\0').toString('base64url')}`, `next=${Buffer.from('e:0:5').toString('base64url')}`]) {
      const r = await g.get(`/sessions?${q}`);
      assert.equal(r.status, 400, q);
      assert.equal(r.json.field, q.split('=')[0]);
    }
  });

  it('shows one with connections, queue, turns and read positions', async () => {
    const id = await g.session(2);
    const peer = await g.connect({ agent_id: 'support', session_id: id, client: { name: 'test', version: '7' } });
    peer.send({ type: 'ack', cursor: 2 });
    const s = await eventually(async () => (await g.get(`/sessions/${id}`)).json, (x) => x.acked.length > 0);
    assert.equal(s.cursor, 2);
    assert.equal(s.owner, 'alice');
    assert.equal(s.open_turn, 1);
    assert.equal(s.queue, 2);
    assert.deepEqual(s.turns.map((t) => [t.turn, t.state, t.attempt]), [[1, 'queued', 0], [2, 'queued', 0]]);
    assert.deepEqual(s.acked, [{ sub: 'alice', cursor: 2 }]);
    assert.equal(s.connections.length, 1);
    assert.deepEqual(s.connections[0].client, { name: 'test', version: '7' });
    const listed = (await g.get(`/sessions?q=${id}`)).json.sessions[0];
    assert.equal(listed.connections, 1);
    assert.equal(listed.open_turn, 1);
    await peer.close();
    const missing = await g.get('/sessions/nothing');
    assert.equal(missing.status, 404);
    assert.equal(missing.json.code, 'session_not_found');
    for (const odd of ['%2e%2e', 'a%2fb', '%f0%9f%98%80', 'x'.repeat(128), 'x'.repeat(129)]) assert.equal((await g.get(`/sessions/${odd}`)).status, 404, odd);
    for (const bad of ['%zz', '%0', '%00']) assert.equal((await g.get(`/sessions/${bad}`)).status, 400, bad);
  });

  it('closes: connections are told, publishing ends', async () => {
    const id = await g.session(1);
    const peer = await g.connect({ agent_id: 'support', session_id: id });
    const r = await g.post(`/sessions/${id}/close`);
    assert.deepEqual(r.json, { id, state: 'closed' });
    await peer.type('session_end');
    assert.equal((await peer.closed).code, 1000);
    assert.equal((await g.post(`/sessions/${id}/close`)).status, 409);
    assert.equal((await g.post(`/sessions/${id}/messages`, { content: 'x' })).json.code, 'session_closed');
    const said = await g.ppost(`/v1/sessions/${id}/messages`, { content: 'x' }, { token: g.alice() });
    assert.equal(said.status, 409);
    assert.equal((await g.get(`/sessions/${id}`)).json.state, 'closed');
    assert.ok((await last('session.close')).detail.includes(id));
    assert.equal((await g.post('/sessions/nothing/close')).status, 404);
  });

  it('deletes, events and all', async () => {
    const id = await g.session(3);
    assert.equal((await g.delete(`/sessions/${id}`)).status, 204);
    for (const p of ['', '/events']) assert.equal((await g.get(`/sessions/${id}${p}`)).status, 404);
    assert.equal((await g.delete(`/sessions/${id}`)).status, 404);
    assert.ok(!(await g.get('/sessions?limit=500')).json.sessions.some((s) => s.id === id));
    const entry = await last('session.delete');
    assert.equal(entry.who, 'ops');
    assert.equal(entry.from, '127.0.0.1');
    assert.ok(entry.detail.includes(id));
  });

  it('tells a client that is away of a new log under a deleted id', async () => {
    const older = (await g.get(`/sessions/${await g.session(1)}`)).json;
    const id = await g.session(2);
    const { epoch } = (await g.get(`/sessions/${id}`)).json;
    await g.delete(`/sessions/${id}`);
    const made = await g.ppost('/v1/sessions', { agent_id: 'support', session_id: id }, { token: g.alice() });
    assert.deepEqual([made.status, made.json.cursor], [201, 0]);
    assert.notEqual(made.json.epoch, epoch);
    for (let i = 0; i < 4; i++) await g.ppost(`/v1/sessions/${id}/messages`, { content: 'new' }, { token: g.alice() });
    const gone = await g.connect({ agent_id: 'support', session_id: id, since: 2, epoch });
    assert.deepEqual([gone.welcome.resync_reason, gone.welcome.epoch], ['epoch_changed', made.json.epoch]);
    const shot = await gone.type('snapshot');
    assert.deepEqual([shot.state.epoch, shot.state.messages.length], [made.json.epoch, 4]);
    const known = await g.connect({ agent_id: 'support', session_id: id, since: 2, epoch: made.json.epoch });
    assert.deepEqual([known.welcome.resync_required, known.welcome.epoch], [false, made.json.epoch]);
    assert.equal((await g.get(`/sessions/${id}`)).json.epoch, made.json.epoch);
    assert.equal((await g.get(`/sessions/${older.id}`)).json.epoch, older.epoch);
    await Promise.all([gone, known].map((peer) => peer.close()));
  });

  it('says something as an operator', async () => {
    const id = await g.session();
    const r = await g.post(`/sessions/${id}/messages`, { content: { n: 1e400 > 1 ? 12 : 0 }, metadata: { a: 1 } }, { headers: { 'Idempotency-Key': 'k1' } });
    assert.equal(r.status, 202);
    const again = await g.post(`/sessions/${id}/messages`, { content: { n: 12 }, metadata: { a: 1 } }, { headers: { 'Idempotency-Key': 'k1' } });
    assert.deepEqual(again.json, { ...r.json, duplicate: true });
    const other = await g.post(`/sessions/${id}/messages`, { content: 'else' }, { headers: { 'Idempotency-Key': 'k1' } });
    assert.equal(other.status, 409);
    assert.equal(other.json.code, 'id_conflict');
    const [e] = (await g.get(`/sessions/${id}/events`)).json.events;
    assert.equal(e.source, 'operator:ops');
    assert.equal(e.type, 'message');
    assert.deepEqual(e.data.content, { n: 12 });
    for (const body of [{}, { content: null }, { content: '' }, { content: 'x', metadata: 1 }]) {
      const bad = await g.post(`/sessions/${id}/messages`, body);
      assert.equal(bad.status, 400);
      assert.equal(bad.json.field, 'metadata' in body ? 'metadata' : 'content');
    }
    assert.equal((await g.post('/sessions/nothing/messages', { content: 'x' })).status, 404);
    assert.equal((await g.post(`/sessions/${id}/messages`, { content: 'x' }, { headers: { 'Idempotency-Key': 'k'.repeat(129) } })).json.field, 'Idempotency-Key');
  });

  it('gives numbers and texts as they were sent', async () => {
    const id = await g.session();
    const raw = '{"content":{"big":12345678901234567890,"exp":1e-7,"zero":1.0,"text":"\\u0041\\ud83d\\ude00"}}';
    assert.equal((await g.post(`/sessions/${id}/messages`, raw)).status, 202);
    const page = await g.get(`/sessions/${id}/events`);
    assert.ok(page.text.includes('{"big":12345678901234567890,"exp":1e-7,"zero":1.0,"text":"\\u0041\\ud83d\\ude00"}'), page.text);
  });

  it('forks at a cursor', async () => {
    const id = await g.session(5);
    const r = await g.post(`/sessions/${id}/fork`, { at: 3 });
    assert.equal(r.status, 201);
    assert.ok((await last('session.fork')).detail.includes(`${id} at 3`));
    assert.deepEqual({ cursor: r.json.cursor, forked_from: r.json.forked_from }, { cursor: 3, forked_from: id });
    const fork = (await g.get(`/sessions/${r.json.session_id}/events`)).json;
    assert.deepEqual(fork.events.map((e) => [e.cursor, e.data.content]), [[1, 'm1'], [2, 'm2'], [3, 'm3']]);
    assert.equal((await g.get(`/sessions/${r.json.session_id}`)).json.owner, 'alice');
    assert.equal((await g.post(`/sessions/${id}/fork`, { at: 0 })).status, 201);
    for (const at of [6, -1, 1.5, '3', null]) {
      const bad = await g.post(`/sessions/${id}/fork`, { at });
      assert.equal(bad.status, 400, String(at));
      assert.equal(bad.json.field, 'at');
    }
    assert.equal((await g.post('/sessions/nothing/fork', { at: 1 })).status, 404);
  });

  it('aborts the turn at work', async () => {
    const id = await g.session(1, { agent: 'other' });
    const w = await g.worker('other');
    const turn = await w.type('turn');
    const reason = 'enough '.repeat(1000); // whatever it says, the turn ends
    const r = await g.post(`/sessions/${id}/abort`, { reason });
    assert.deepEqual(r.json, { status: 'aborted', session_id: id, turn: 1 });
    assert.equal((await w.type('abort')).reason, reason);
    const entry = await last('turn.abort');
    assert.ok(entry.who === 'ops' && entry.from === '127.0.0.1' && entry.detail.includes(id));
    w.send({ type: 'final', session_id: id, turn: turn.turn, content: '', outcome: { status: 'aborted' } });
    w.send({ type: 'ping' });
    await w.type('pong');
    assert.deepEqual((await g.post(`/sessions/${id}/abort`)).json, { status: 'no_active_turn', session_id: id });
    assert.equal((await g.post(`/sessions/${id}/abort`, { turn: 0 })).status, 400);
    assert.equal((await g.post('/sessions/nothing/abort')).status, 404);
    await w.close();
  });

  describe('events', () => {
    let id;
    before(async () => { id = await g.session(30); });
    const cursors = async (q, options) => {
      const r = await g.get(`/sessions/${id}/events?${q}`, options);
      assert.equal(r.status, 200, r.text);
      return r.json.events.map((e) => e.cursor);
    };
    const upTo = (a, b) => Array.from({ length: Math.abs(b - a) + 1 }, (_, i) => (a < b ? a + i : a - i));

    it('by position and order', async () => {
      assert.deepEqual(await cursors(''), upTo(1, 30));
      assert.deepEqual(await cursors('since=27'), [28, 29, 30]);
      assert.deepEqual(await cursors('since=5&before=9'), [6, 7, 8]);
      assert.deepEqual(await cursors('before=4&order=desc'), [3, 2, 1]);
      assert.deepEqual(await cursors('order=desc&limit=3'), [30, 29, 28]);
      assert.deepEqual(await cursors('since=30'), []);
      assert.deepEqual(await cursors('since=99'), []);
      assert.deepEqual(await cursors('before=0'), []);
      assert.deepEqual(await cursors('type=message,response&since=28'), [29, 30]);
      assert.deepEqual(await cursors('type=response'), []);
      assert.deepEqual(await cursors('type=mess,messages'), []);
      for (const q of ['since=-1', 'since=x', 'order=up', 'limit=501', 'next=x', 'token=x', `since=${2 ** 53}`]) {
        const r = await g.get(`/sessions/${id}/events?${q}`);
        assert.equal(r.status, 400, q);
        assert.equal(r.json.field, q.split('=')[0]);
      }
    });

    for (const [order, limit] of [['asc', 7], ['desc', 7], ['asc', 1], ['desc', 1]]) {
      it(`page by page, ${order}, ${limit} at a time`, async () => {
        const got = [];
        let next = '';
        do {
          const r = (await g.get(`/sessions/${id}/events?limit=${limit}&order=${order}${next && `&next=${next}`}`)).json;
          assert.ok(r.events.length <= limit && got.length < 30);
          got.push(...r.events.map((e) => e.cursor));
          next = r.next;
        } while (next);
        assert.deepEqual(got, order === 'asc' ? upTo(1, 30) : upTo(30, 1));
      });
    }

    it('a position of the other order', async () => {
      const { next } = (await g.get(`/sessions/${id}/events?limit=7`)).json;
      assert.equal((await g.get(`/sessions/${id}/events?limit=7&order=desc&next=${next}`)).status, 400);
    });

    it('a page is bounded in bytes', async () => {
      const big = await g.session();
      for (let i = 0; i < 4; i++) await g.post(`/sessions/${big}/messages`, { content: 'x'.repeat(30000) });
      const first = (await g.get(`/sessions/${big}/events`)).json;
      assert.equal(first.events.length, 2);
      const second = (await g.get(`/sessions/${big}/events?next=${first.next}`)).json;
      assert.deepEqual(second.events.map((e) => e.cursor), [3, 4]);
      assert.equal(second.next, null);
    });

    it('an export, line by line', async () => {
      const r = await g.get(`/sessions/${id}/events`, { headers: { Accept: 'application/x-ndjson' } });
      assert.equal(r.headers['transfer-encoding'], 'chunked');
      const lines = r.text.trimEnd().split('\n').map((l) => JSON.parse(l).cursor);
      assert.deepEqual(lines, upTo(1, 30));
      const empty = await g.session();
      assert.equal((await g.get(`/sessions/${empty}/events`, { headers: { Accept: 'application/x-ndjson' } })).text, '');
      assert.equal((await g.get(`/sessions/${id}/events?limit=3`, { headers: { Accept: 'application/x-ndjson' } })).json.field, 'limit');
    });

    it('a long export, with events of every size', async () => {
      const long = await g.session();
      const said = [];
      for (let i = 0; i < 60; i++) {
        said.push('y'.repeat(i * 1000));
        await g.post(`/sessions/${long}/messages`, { content: `c${said[i]}` });
      }
      const r = await g.get(`/sessions/${long}/events`, { headers: { Accept: 'application/x-ndjson' } });
      assert.deepEqual(r.text.trimEnd().split('\n').map((l) => JSON.parse(l).data.content), said.map((s) => `c${s}`));
    });

    it('an export of a session that is deleted meanwhile is not taken for a whole one', async () => {
      const gone = await g.session();
      for (let i = 0; i < 400; i++) await g.ppost(`/v1/sessions/${gone}/messages`, { content: 'x'.repeat(60000) }, { token: g.alice() });
      const [host, port] = g.admin.split(':');
      const s = net.connect({ port, host });
      const begun = new Promise((done) => { s.once('readable', done); }); // more is not read yet than the sockets hold
      s.write(`GET /api/v1/sessions/${gone}/events HTTP/1.1\r\nHost: ${g.admin}\r\nAuthorization: Bearer ${g.token()}\r\nAccept: application/x-ndjson\r\n\r\n`);
      await begun;
      assert.equal((await g.delete(`/sessions/${gone}`)).status, 204);
      await eventually(async () => g.ppost('/v1/sessions', { agent_id: 'support', session_id: gone }, { token: g.alice() }), (r) => r.status === 201);
      let text = '';
      s.setEncoding('latin1').on('data', (d) => { text += d; });
      await once(s, 'end');
      assert.match(text, /^HTTP\/1.1 200 /);
      assert.ok(text.split('"type":"message"').length - 1 < 400);
      assert.ok(!text.endsWith('\r\n0\r\n\r\n'), 'ended as if it were whole');
    });

    it('no other form', async () => {
      assert.equal((await g.get(`/sessions/${id}/events`, { headers: { Accept: 'text/html' } })).status, 406);
      assert.equal((await g.get(`/sessions/${id}/events`, { headers: { Accept: 'text/html, */*;q=0.1' } })).status, 200);
    });
  });

  it('agents: register, look, forget', async () => {
    const made = await g.put('/agents/new%20one');
    assert.equal(made.status, 201);
    assert.deepEqual(made.json.workers, []);
    assert.equal((await g.put('/agents/new%20one', {})).status, 200);
    for (const name of ['x'.repeat(129), '%ff']) {
      const { status, json } = await g.put(`/agents/${name}`);
      assert.deepEqual([status, json.code, json.field], [400, 'invalid_request', 'id']);
    }
    assert.equal((await g.get('/agents/new%20one')).json.id, 'new one');
    await g.session(2, { agent: 'new one' });
    assert.equal((await g.get('/agents/new%20one')).json.queue_depth, 2);
    assert.ok((await g.get('/agents/new%20one')).json.oldest_waiting > Date.now() / 1000 - 60);
    const w = await g.worker('new one', 3);
    await w.type('turn');
    const a = (await g.get('/agents/new%20one')).json;
    assert.equal(a.workers.length, 1);
    assert.equal(a.workers[0].concurrency, 3);
    assert.equal(a.workers[0].running, 1);
    assert.equal(a.workers[0].worker_id, w.welcome.worker_id);
    assert.equal(a.open_turns, 1);
    assert.equal((await g.delete('/agents/new%20one')).status, 409);
    await w.close();
    assert.equal((await g.put('/agents/idle')).status, 201);
    assert.equal((await g.delete('/agents/idle')).status, 204);
    assert.equal((await g.get('/agents/idle')).status, 404);
    assert.equal((await g.delete('/agents/idle')).json.code, 'agent_not_found');
    const names = [];
    let next = '';
    do {
      const r = (await g.get(`/agents?limit=1${next && `&next=${next}`}`)).json;
      names.push(...r.agents.map((x) => x.id));
      next = r.next;
    } while (next);
    assert.deepEqual(names, [...names].sort());
    assert.ok(names.includes('support') && names.includes('other') && names.includes('new one'));
  });

  it('dead letters, and another try', async () => {
    await g.put('/agents/frail');
    const id = await g.session(1, { agent: 'frail' });
    const w = await g.worker('frail');
    const turn = await w.type('turn');
    w.send({ type: 'fail', session_id: id, turn: turn.turn, error: 'no idea' });
    const peer = await g.connect({ agent_id: 'frail', session_id: id, since: 0 });
    await peer.until((f) => f.status === 'final' || f.event?.data?.status === 'final');
    const dead = (await g.get(`/turns?state=dead&session=${id}`)).json.turns;
    assert.deepEqual(dead.map((t) => [t.session_id, t.agent, t.turn, t.state, t.error]), [[id, 'frail', 1, 'dead', 'no idea']]);
    assert.equal((await g.get('/agents/frail')).json.dead_turns, 1);
    const r = await g.post(`/turns/${id}/1/retry`);
    assert.equal(r.status, 202);
    assert.equal(r.json.retried, 1);
    const again = await w.type('turn');
    assert.equal(again.turn, r.json.turn);
    assert.equal(again.message.data.content, 'm1');
    assert.deepEqual((await g.get(`/turns?state=dead&session=${id}`)).json.turns, []);
    for (const p of [`/turns/${id}/1/retry`, `/turns/${id}/9/retry`, `/turns/${id}/x/retry`, '/turns/nothing/1/retry']) assert.equal((await g.post(p)).status, 404, p);
    w.send({ type: 'fail', session_id: id, turn: again.turn, error: 'still none' });
    await peer.until((f) => f.status === 'final' && f.turn === again.turn);
    await g.post(`/sessions/${id}/close`);
    assert.equal((await g.post(`/turns/${id}/${again.turn}/retry`)).status, 409);
    await w.close();
  });

  it('the open turn behind many dead ones', async () => {
    await g.put('/agents/ailing');
    const id = await g.session(41, { agent: 'ailing' });
    const w = await g.worker('ailing');
    for (let n = 1; n <= 40; n++) {
      const { turn } = await w.type('turn');
      w.send({ type: 'fail', session_id: id, turn, error: 'no' });
    }
    assert.equal((await w.type('turn')).turn, 41);
    assert.equal((await g.get(`/sessions/${id}`)).json.open_turn, 41);
    assert.equal((await g.get(`/sessions?q=${id}`)).json.sessions[0].open_turn, 41);
    await w.close();
  });

  it('turns of all sessions, page by page', async () => {
    const id = await g.session(5, { agent: 'other' });
    const got = [];
    let next = '';
    do {
      const r = (await g.get(`/turns?state=queued&session=${id}&limit=2${next && `&next=${next}`}`)).json;
      got.push(...r.turns.map((t) => t.turn));
      next = r.next;
    } while (next);
    assert.deepEqual(got, [1, 2, 3, 4, 5]);
    assert.ok((await g.get('/turns?limit=500')).json.turns.length > 5);
    assert.equal((await g.get('/turns?state=odd')).json.field, 'state');
    assert.equal((await g.get('/turns?session=nothing')).status, 404);
  });
});
