// Pages of ten thousand sessions while they change: those that do not change come exactly once.
'use strict';
const { describe, it, before, after } = require('node:test');
const assert = require('node:assert/strict');
const { Gate } = require('./gate.js');

const SESSIONS = Number(process.env.HTTP_SESSIONS || 10000);
const AT_ONCE = 32;

async function pool(n, work) {
  let next = 0;
  await Promise.all(Array.from({ length: AT_ONCE }, async () => {
    while (next < n) await work(next++);
  }));
}

describe('paging', () => {
  let g;
  before(async () => {
    g = await new Gate().start();
    await pool(SESSIONS, async (i) => {
      const r = await g.ppost('/v1/sessions', { agent_id: 'support', session_id: `s-${i}` }, { token: g.alice() });
      assert.equal(r.status, 201, r.text);
    });
  });
  after(async () => { assert.equal(await g.stop(), 0); g.kill(); });

  const walk = async (q, during = async () => {}) => {
    const seen = new Map();
    let next = '';
    let pages = 0;
    do {
      const r = await g.get(`/sessions?limit=500${q}${next && `&next=${next}`}`);
      assert.equal(r.status, 200, r.text);
      assert.ok(r.json.sessions.length <= 500);
      for (const s of r.json.sessions) seen.set(s.id, (seen.get(s.id) || 0) + 1);
      next = r.json.next;
      await during(pages++);
    } while (next);
    return seen;
  };

  it('at rest: each once', async () => {
    const seen = await walk('');
    assert.equal(seen.size, SESSIONS);
    assert.ok([...seen.values()].every((n) => n === 1));
  });

  it('while sessions are made, spoken in, closed and deleted', async () => {
    const quiet = (i) => i % 4 === 0;
    let changes = 0;
    const change = async () => {
      const i = (changes++ * 7919) % SESSIONS;
      if (quiet(i)) return;
      if (i % 4 === 1) await g.ppost(`/v1/sessions/s-${i}/messages`, { content: 'x' }, { token: g.alice() });
      else if (i % 4 === 2) await g.delete(`/sessions/s-${i}`);
      else if (i % 8 === 3) await g.post(`/sessions/s-${i}/close`);
      else await g.ppost('/v1/sessions', { agent_id: 'support', session_id: `new-${changes}` }, { token: g.alice() });
    };
    const seen = await walk('', () => pool(100, change));
    assert.ok(changes >= SESSIONS / 10);
    for (let i = 0; i < SESSIONS; i += 4) assert.equal(seen.get(`s-${i}`), 1, `s-${i}`);
  });

  it('filtered', async () => {
    const seen = await walk('&q=s-12');
    assert.ok(seen.size > 0);
    for (const [id, n] of seen) assert.ok(id.includes('s-12') && n === 1, id);
  });

  it('connections, page by page', async () => {
    const peers = await Promise.all(Array.from({ length: 25 }, () => g.connect({ agent_id: 'support' })));
    const ids = [];
    let next = '';
    do {
      const r = (await g.get(`/connections?limit=10&sub=alice${next && `&next=${next}`}`)).json;
      ids.push(...r.connections.map((c) => c.id));
      next = r.next;
    } while (next);
    assert.equal(ids.length, 25);
    assert.deepEqual(ids, [...new Set(ids)].sort());
    await Promise.all(peers.map((p) => p.close()));
  });
});
