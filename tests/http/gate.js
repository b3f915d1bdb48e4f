// A real gateway process on a folder of its own, and requests to it. Every answer is held against
// admin/openapi.yaml (api.js) as it comes.
'use strict';
const { spawn, execFileSync } = require('node:child_process');
const crypto = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');
const WebSocket = require('ws');
const api = require('./api.js');

const BIN = path.resolve(process.env.EBBGATE_BIN || 'build/ebbgate');
const gates = new Set();

process.on('exit', () => {
  for (const g of gates) g.kill();
});

class Gate {
  constructor(args = []) {
    this.dir = fs.mkdtempSync(path.join(os.tmpdir(), 'ebbgate-http-'));
    this.args = args;
    this.tokens = new Map();
    this.log = '';
  }

  start() {
    gates.add(this);
    this.process = spawn(BIN, ['serve', '--data', path.join(this.dir, 'data'), '--listen', this.public || '127.0.0.1:0',
      '--admin', '127.0.0.1:0', '--agents', 'support,other', ...this.args], { stdio: ['ignore', 'pipe', 'pipe'] });
    this.exited = new Promise((done) => this.process.once('exit', (code, signal) => {
      this.process = null;
      done(code ?? signal);
    }));
    this.process.stderr.on('data', (d) => { this.log += d; });
    return new Promise((ready, failed) => {
      let line = '';
      this.process.stdout.on('data', (d) => {
        line += d;
        const m = /^ebbgate ready public=(\S+) admin=(\S+)\n/.exec(line);
        if (!m) return;
        [, this.public, this.admin] = m;
        ready(this);
      });
      this.exited.then((code) => failed(new Error(`the gateway ended (${code}): ${this.log}`)));
    });
  }

  async stop() {
    if (this.process) this.process.kill('SIGTERM');
    const code = await this.exited;
    return code;
  }

  kill() {
    gates.delete(this);
    if (this.process) this.process.kill('SIGKILL');
    fs.rmSync(this.dir, { recursive: true, force: true });
  }

  // A token as the command line makes it. sub, scope, agents, sessions, ttl.
  token(claims = {}) {
    const c = { sub: 'ops', scope: 'admin read write agent', agents: '*', ttl: '3600', ...claims };
    const key = JSON.stringify(c);
    if (!this.tokens.has(key)) {
      const args = ['token', '--data', path.join(this.dir, 'data')];
      if (this.audience) args.push('--audience', this.audience);
      for (const [k, v] of Object.entries(c)) {
        if (v !== null) args.push(`--${k}`, String(v));
      }
      this.tokens.set(key, execFileSync(BIN, args, { encoding: 'utf8' }).trim());
    }
    return this.tokens.get(key);
  }

  // A token signed with the gateway's key that says anything.
  forge(claims, header = {}) {
    const dir = path.join(this.dir, 'data/keys');
    const jwk = JSON.parse(fs.readFileSync(path.join(dir, fs.readdirSync(dir).filter((f) => f.endsWith('.key')).sort().pop())));
    const b64 = (o) => Buffer.from(JSON.stringify(o)).toString('base64url');
    const text = `${b64({ alg: 'EdDSA', typ: 'JWT', kid: jwk.kid, ...header })}.${b64(claims)}`;
    const key = crypto.createPrivateKey({ key: jwk, format: 'jwk' });
    return `${text}.${crypto.sign(null, Buffer.from(text), key).toString('base64url')}`;
  }

  // One request. where: 'admin' or 'public'. options: token (null: none), body (object: as JSON),
  // headers, raw (do not hold against the description). Resolves to {status, headers, text, json}.
  request(where, method, target, options = {}) {
    const { token = this.token(), body, headers = {}, raw = false } = options;
    const [host, port] = this[where].split(':');
    const all = { ...headers };
    if (token !== null) all.Authorization ??= `Bearer ${token}`;
    const text = body === undefined ? undefined : typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body);
    if (text !== undefined) {
      all['Content-Type'] ??= 'application/json';
      all['Content-Length'] ??= Buffer.byteLength(text);
    }
    return new Promise((done, failed) => {
      const req = http.request({ host, port, method, path: target, headers: all, agent: false, timeout: 20000 }, (res) => {
        const parts = [];
        res.on('data', (d) => parts.push(d));
        res.on('error', failed);
        res.on('end', () => {
          const answer = { status: res.statusCode, headers: res.headers, text: Buffer.concat(parts).toString() };
          if (/[/+]json$/.test(String(res.headers['content-type']))) answer.json = JSON.parse(answer.text);
          try {
            if (!raw) api.check(where, method, target, answer);
            done(answer);
          } catch (e) {
            failed(e);
          }
        });
      });
      req.on('timeout', () => req.destroy(new Error(`no answer: ${method} ${target}`)));
      req.on('error', failed);
      req.end(text);
    });
  }

  get(target, options) { return this.request('admin', 'GET', `/api/v1${target}`, options); }
  post(target, body, options) { return this.request('admin', 'POST', `/api/v1${target}`, { body, ...options }); }
  put(target, body, options) { return this.request('admin', 'PUT', `/api/v1${target}`, { body, ...options }); }
  delete(target, options) { return this.request('admin', 'DELETE', `/api/v1${target}`, options); }
  pget(target, options) { return this.request('public', 'GET', target, options); }
  ppost(target, body, options) { return this.request('public', 'POST', target, { body, ...options }); }

  // A new session of alice's with `messages` messages.
  async session(messages = 0, { agent = 'support', token = this.alice() } = {}) {
    const made = await this.ppost('/v1/sessions', { agent_id: agent }, { token });
    if (made.status !== 201) throw new Error(`no session: ${made.text}`);
    const id = made.json.session_id;
    for (let i = 1; i <= messages; i++) {
      const said = await this.ppost(`/v1/sessions/${id}/messages`, { content: `m${i}` }, { token });
      if (said.status !== 202) throw new Error(`not said: ${said.text}`);
    }
    return id;
  }

  alice() { return this.token({ sub: 'alice', scope: 'read write', agents: null }); }

  // A WebSocket that has said hello.
  async connect(hello, token = this.alice()) {
    const peer = new Peer(new WebSocket(`ws://${this.public}/ws`, { headers: { Authorization: `Bearer ${token}` } }));
    await peer.opened;
    peer.send({ type: 'hello', protocol_min: 1, protocol_max: 1, capabilities: ['streaming'], ...hello });
    peer.welcome = await peer.until((f) => f.type === 'hello_ok' || f.type === 'hello_error');
    return peer;
  }

  worker(agent = 'support', concurrency = 10) {
    return this.connect({ role: 'agent', agent_id: agent, concurrency }, this.token());
  }
}

class Peer {
  constructor(ws) {
    this.ws = ws;
    this.frames = [];
    this.waiters = [];
    this.opened = new Promise((done, failed) => {
      ws.once('open', done);
      ws.once('error', failed);
    });
    this.closed = new Promise((done) => ws.once('close', (code, reason) => done({ code, reason: String(reason) })));
    ws.on('message', (data) => {
      this.frames.push(JSON.parse(data));
      this.look();
    });
  }

  send(frame) { this.ws.send(JSON.stringify(frame)); }

  look() {
    for (const w of [...this.waiters]) {
      const i = this.frames.findIndex(w.want);
      if (i < 0) continue;
      this.waiters.splice(this.waiters.indexOf(w), 1);
      clearTimeout(w.timer);
      w.done(this.frames.splice(i, 1)[0]);
    }
  }

  // The first frame, come or to come, that want accepts.
  until(want) {
    return new Promise((done, failed) => {
      const timer = setTimeout(() => failed(new Error(`did not come; there is ${JSON.stringify(this.frames).slice(0, 500)}`)), 10000);
      this.waiters.push({ want, done, timer });
      this.look();
    });
  }

  type(name) { return this.until((f) => f.type === name); }
  close() { this.ws.close(); return this.closed; }
}

// Asks again until want accepts the answer; the last answer when it never does.
async function eventually(ask, want, ms = 10000) {
  const until = Date.now() + ms;
  for (;;) {
    const got = await ask();
    if (want(got) || Date.now() > until) return got;
    await new Promise((done) => setTimeout(done, 20));
  }
}

module.exports = { Gate, BIN, eventually };
