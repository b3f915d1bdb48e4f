/** A gateway of one's own, with agents, on free ports and a folder that goes away with it. */
import { spawn, execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';

const BIN = process.env.EBBGATE_BIN;
const AGENT = new URL('./agent.mjs', import.meta.url).pathname;
const run = promisify(execFile);

/** Calls `fn` until it gives something true. */
export async function until(what, fn, ms = 20000) {
  const end = Date.now() + ms;
  for (;;) {
    const value = await fn();
    if (value) return value;
    if (Date.now() > end) throw new Error(`never happened: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
}

export class Gateway {
  static async start(args = []) {
    const gate = new Gateway();
    gate.folder = await mkdtemp(join(tmpdir(), 'ebbgate-console.'));
    gate.args = args;
    gate.children = [];
    gate.log = '';
    gate.public = '127.0.0.1:0';
    gate.admin = '127.0.0.1:0';
    await gate.serve();
    gate.token = await gate.mint('operator', 'admin read write');
    return gate;
  }

  /** Starts the daemon, on the ports it had before if there were any. */
  async serve() {
    const data = join(this.folder, 'data');
    this.daemon = spawn(BIN, ['serve', '--data', data, '--listen', this.public, '--admin', this.admin, '--retry-backoff', '100ms', ...this.args],
      { stdio: ['ignore', 'pipe', 'pipe'] });
    this.daemon.stderr.on('data', (text) => (this.log += text));
    for await (const line of createInterface({ input: this.daemon.stdout })) {
      const ready = /^ebbgate ready public=(\S+) admin=(\S+)/.exec(line);
      if (!ready) continue;
      [, this.public, this.admin] = ready;
      this.daemon.stdout.resume();
      return;
    }
    throw new Error(`the gateway did not start:\n${this.log}`);
  }

  get url() {
    return `http://${this.admin}`;
  }

  async mint(sub, scope, extra = []) {
    const { stdout } = await run(BIN, ['token', '--data', join(this.folder, 'data'), '--sub', sub, '--scope', scope, '--ttl', '3600', ...extra]);
    return stdout.trim();
  }

  /** Attaches the scripted agent (lib/agent.mjs) under `id`. */
  async agent(id, ...more) {
    const child = spawn(BIN, ['agent', '--data', join(this.folder, 'data'), '--id', id, '--url', `ws://${this.public}/ws`, '--mode', 'jsonl',
      '--concurrency', '8', ...more, '--exec', process.execPath, AGENT], { stdio: ['ignore', 'ignore', 'pipe'] });
    this.children.push(child);
    let said = '';
    child.stderr.on('data', (text) => (said += text));
    await until(`agent ${id} attached: ${said}`, () => said.includes('is attached'));
    return child;
  }

  async call(method, path, body, base = `${this.url}/api/v1`, token = this.token) {
    const response = await fetch(`${base}/${path}`, {
      method,
      headers: { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return text ? JSON.parse(text) : null;
  }

  /** Begins a session as `token`'s sub. @returns its id */
  async session(agent, token = this.token) {
    return (await this.call('POST', 'v1/sessions', { agent_id: agent }, `http://${this.public}`, token)).session_id;
  }

  /** Says something in it as a client. */
  say(id, content, token = this.token) {
    return this.call('POST', `v1/sessions/${id}/messages`, { content }, `http://${this.public}`, token);
  }

  events(id) {
    return this.call('GET', `sessions/${encodeURIComponent(id)}/events?limit=500`).then((page) => page.events);
  }

  /** Waits until every turn of the session has ended. */
  settled(id) {
    return until(`turns of ${id} ended`, async () => {
      const { turns } = await this.call('GET', `sessions/${id}`);
      return turns.every((turn) => turn.state === 'dead');
    });
  }

  /** Kills the daemon; agents stay, and come back to the next one. */
  async kill() {
    this.daemon.kill('SIGKILL');
    await once(this.daemon, 'exit');
  }

  async stop() {
    for (const child of [...this.children, this.daemon]) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), 5000);
      await once(child, 'exit');
      clearTimeout(timer);
    }
    await rm(this.folder, { recursive: true, force: true });
  }
}
