/**
 * A scripted agent: reads turn and abort frames as lines, writes frames as lines. What a message says
 * decides what happens:
 *   echo TEXT        streams TEXT word by word, then the same as the answer
 *   tick             streams a piece every 40 ms until it is aborted
 *   hold TEXT        streams TEXT and waits for the file named in $HOLD, or the abort
 *   tools            reasoning, a tool's call, progress and result, a status, text
 *   fail             fails for good, as long as the file named in $MEND is not there
 *   emit JSON        streams the value as one token's content, and answers with it
 *   differ           answers something else than it streamed
 */
import { existsSync } from 'node:fs';
import { createInterface } from 'node:readline';

const open = new Map();
const put = (frame) => process.stdout.write(`${JSON.stringify(frame)}\n`);
const key = (frame) => `${frame.session_id} ${frame.turn}`;

function begin(frame) {
  const at = { session_id: frame.session_id, turn: frame.turn };
  const run = {
    emit: (event, data) => put({ type: 'emit', ...at, event, data }),
    token: (content) => run.emit('token_stream', { content }),
    final: (content, outcome) => {
      if (!open.delete(key(frame))) return;
      clearInterval(run.timer);
      put({ type: 'final', ...at, content, ...(outcome ? { outcome } : {}) });
    },
    fail: (error) => {
      open.delete(key(frame));
      put({ type: 'fail', ...at, error, retry: false });
    },
    every: (ms, fn) => (run.timer = setInterval(fn, ms)),
    said: '',
  };
  open.set(key(frame), run);
  return run;
}

const acts = {
  echo(run, rest) {
    for (const piece of rest.match(/\S+\s*/g) ?? ['']) run.token(piece);
    run.final(rest);
  },
  tick(run) {
    let n = 0;
    run.every(40, () => {
      n += 1;
      run.said += `piece ${n}. `;
      run.token(`piece ${n}. `);
    });
  },
  hold(run, rest) {
    run.said = rest;
    run.token(rest);
    run.every(20, () => existsSync(process.env.HOLD ?? '/nonexistent') && run.final(rest));
  },
  tools(run) {
    run.emit('status', { text: 'Looking it up' });
    run.emit('reasoning_stream', { content: 'The question is about the order. ' });
    run.emit('reasoning_stream', { content: 'I look at the shop first.' });
    run.emit('tool_call_stream', { id: 'call-1', name: 'lookup_order', arguments: { order: 'A-1042' } });
    run.emit('tool_progress_stream', { id: 'call-1', done: 1 });
    run.emit('tool_result_stream', { id: 'call-1', result: { state: 'sent', carrier: 'post', days: 2 } });
    const text = 'Your order A-1042 was sent two days ago and should be with you tomorrow.';
    for (const piece of text.match(/\S+\s*/g)) run.token(piece);
    run.final(text);
  },
  fail(run) {
    if (existsSync(process.env.MEND ?? '/nonexistent')) run.final('mended');
    else run.fail('the model is out of reach');
  },
  emit(run, rest) {
    const value = JSON.parse(rest);
    run.token(value);
    run.final(value);
  },
  differ(run) {
    run.token('a first draft');
    run.final('the final words');
  },
};

function turn(frame) {
  const content = frame.message?.data?.content;
  const text = typeof content === 'string' ? content : JSON.stringify(content);
  const [, word, rest] = /^(\S+) ?([\s\S]*)$/.exec(text);
  const run = begin(frame);
  (acts[word] ?? (() => acts.echo(run, `You said: ${text}`)))(run, rest);
}

for await (const line of createInterface({ input: process.stdin })) {
  const frame = JSON.parse(line);
  if (frame.type === 'turn') turn(frame);
  else if (frame.type === 'abort') open.get(key(frame))?.final(open.get(key(frame)).said, { status: 'aborted' });
}
