/**
 * The gateway's numbers, sampled for the whole console: every two seconds on the overview, seldom
 * elsewhere, never while the tab is hidden. Keeps five minutes of them.
 */
import { call, get } from './api.js';
import { parseMetrics, quantile } from './metrics.js';

const KEEP_S = 300;
const FAST_MS = 2000;
const SLOW_MS = 10000;

const pulse = { samples: [], stats: null, metrics: null, ready: null, problem: null };
const listeners = new Set();
let timer = null;
let stopping = new AbortController();
let fast = false;

/** Calls `fn(pulse)` now and after each sample. @returns a function that ends it */
export function onPulse(fn) {
  listeners.add(fn);
  queueMicrotask(() => listeners.has(fn) && fn(pulse));
  return () => listeners.delete(fn);
}

const rate = (now, before, seconds) => (before === undefined || now < before ? 0 : (now - before) / seconds);

function sample(stats, metrics) {
  const last = pulse.samples.at(-1);
  const restarted = pulse.stats && pulse.stats.started !== stats.started;
  if (restarted) pulse.samples.length = 0;
  const before = restarted ? null : pulse.metrics;
  const seconds = last ? Math.max(0.2, stats.now - last.at) : 1;
  const commits = metrics.histogram('ebbgate_commit_seconds');
  const old = before?.histogram('ebbgate_commit_seconds');
  pulse.samples.push({
    at: stats.now,
    connections: stats.connections,
    events: before ? rate(stats.log.events, pulse.stats.log.events, seconds) : null,
    commit50: old ? quantile(commits, old, 0.5) : null,
    commit99: old ? quantile(commits, old, 0.99) : null,
    waiting: stats.turns.waiting,
    running: stats.turns.running,
  });
  while (pulse.samples[0].at < stats.now - KEEP_S) pulse.samples.shift();
  pulse.stats = stats;
  pulse.metrics = metrics;
}

async function readiness(signal) {
  try {
    return await get('/ready', undefined, signal);
  } catch (problem) {
    if (problem.status !== 503 || !Array.isArray(problem.body?.failing)) throw problem;
    return problem.body;
  }
}

async function beat() {
  const { signal } = stopping;
  try {
    if (!document.hidden) {
      const [stats, metrics, ready] = await Promise.all([
        get('stats', undefined, signal),
        call('GET', '/metrics', { signal, text: true }),
        readiness(signal),
      ]);
      if (signal.aborted) return;
      sample(stats, parseMetrics(metrics));
      pulse.ready = ready;
      pulse.problem = null;
    }
  } catch (problem) {
    if (signal.aborted) return;
    pulse.problem = problem;
  }
  for (const fn of [...listeners]) fn(pulse);
  timer = setTimeout(beat, fast ? FAST_MS : SLOW_MS);
}

function again() {
  clearTimeout(timer);
  stopping.abort();
  stopping = new AbortController();
  beat();
}

/** Samples often until `signal` is aborted. */
export function beatFast(signal) {
  fast = true;
  signal.addEventListener('abort', () => (fast = false), { once: true });
  again();
}

export function startPulse() {
  pulse.problem = null;
  again();
}

export function stopPulse() {
  clearTimeout(timer);
  stopping.abort();
  listeners.clear();
}

document.addEventListener('visibilitychange', () => {
  if (!document.hidden && !stopping.signal.aborted && listeners.size > 0) again();
});
