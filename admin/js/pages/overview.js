/** Live numbers of the gateway, and its settings. */
import { get } from '../api.js';
import { chart } from '../chart.js';
import { h, put } from '../dom.js';
import { bytes, clock, count, microseconds, short, span } from '../format.js';
import { maintenance } from '../maintenance.js';
import { beatFast, onPulse } from '../pulse.js';
import { busyIn } from '../redraw.js';
import { link } from '../router.js';
import { code, visible } from '../text.js';
import { empty, explain, facts, failure, loading, panel } from '../widgets.js';

const whole = (n) => short(Math.round(n));
const perSecond = (n) => `${n > 0 && n < 10 ? n.toFixed(1) : whole(n)}/s`;

function charts() {
  return [
    chart({ title: 'Connections', format: whole, least: 5, lines: [{ name: 'connections', title: 'now', kind: 'one' }] }),
    chart({ title: 'Events', format: perSecond, least: 5, lines: [{ name: 'events', title: 'stored', kind: 'one' }] }),
    chart({
      title: 'Commit latency',
      format: (s) => microseconds(s * 1e6),
      least: 0.0005,
      lines: [{ name: 'commit50', title: 'median', kind: 'one' }, { name: 'commit99', title: '99 %', kind: 'two' }],
    }),
    chart({
      title: 'Turns',
      format: whole,
      least: 5,
      lines: [{ name: 'waiting', title: 'waiting', kind: 'two' }, { name: 'running', title: 'at work', kind: 'one' }],
    }),
  ];
}

/** A number with a name; a link when there is more to see. */
function tile(name, href, read) {
  const value = h('strong', { class: 'num' });
  const note = h('small');
  return {
    element: h(href ? 'a' : 'div', { class: 'tile', href }, h('span', { class: 'tile-name' }, name), value, note),
    draw(s) {
      [value.textContent, note.textContent] = read(s);
    },
  };
}

const ended = (t) => t.ok + t.error + t.rejected + t.aborted + t.dead;

const tiles = () => [
  tile('Connections', link('connections'), (s) => [short(s.connections), `${short(s.workers)} of them workers`]),
  tile('Open sessions', link('sessions', { state: 'open' }), (s) => [short(s.sessions.open), `${short(s.sessions.total)} stored`]),
  tile('Turns waiting', link('agents'), (s) => [short(s.turns.waiting), `${short(s.turns.running)} at work`]),
  tile('Turns ended', null, ({ turns: t }) => [short(ended(t)), `${short(t.ok)} well, ${short(t.error)} failed, ${short(t.aborted)} aborted`]),
  tile('Dead letters', link('dead'), (s) => [short(s.turns.dead), 'since the start']),
];

function about(s) {
  return [
    panel('Storage', facts([
      ['State', s.storage.ok ? 'writes well' : 'writes fail: look at the log'],
      ['Database', bytes(s.storage.db_bytes)],
      ['Write-ahead log', bytes(s.storage.wal_bytes)],
      ['Free on the disk', bytes(s.storage.disk_free_bytes)],
      ['Events', `${count(s.log.events)} since the start, ${bytes(s.log.event_bytes)}`],
      ['Commits', `${count(s.log.commits)}, ${count(s.log.commit_failures)} failed`],
      ['Repeats recognised', count(s.log.duplicates)],
    ])),
    panel('Gateway', facts([
      ['Version', s.version],
      ['Started', h('span', null, clock(s.started), ` (${span(s.now - s.started)} ago)`)],
      ['Public listener', code(s.public)],
      ['Admin listener', code(s.admin)],
      ['Epoch of the log', code(s.epoch)],
      ['Publish latency', `${microseconds(s.latency.publish_p50_us)} median, 99 % below ${microseconds(s.latency.publish_p99_us)}`],
      ['Commands in a commit', `${count(s.latency.batch_p50)} (median)`],
    ])),
  ];
}

function errors(metrics) {
  const seen = metrics.labelled('ebbgate_errors_total').filter(([, n]) => n > 0).sort((a, b) => b[1] - a[1]);
  if (seen.length === 0) return panel('Errors told', h('p', { class: 'soft' }, 'None since the start.'));
  return panel('Errors told', h('dl', { class: 'facts counts' }, seen.map(([name, n]) => h('div', null, h('dt', null, code(name)), h('dd', { class: 'num' }, count(n))))));
}

function shownSetting(value) {
  if (Array.isArray(value)) return value.length ? value.map(visible).join(', ') : '–';
  return value === '' ? '–' : visible(value);
}

/** Settings are loaded when they are looked at. */
function settings(page) {
  const body = h('div');
  const box = h('details', { class: 'panel' }, h('summary', null, h('h2', null, 'Settings in force')), body);
  const load = async () => {
    put(body, loading('Loading the settings …'));
    try {
      const config = await get('config', undefined, page.signal);
      put(body, h('dl', { class: 'facts wide' }, Object.entries(config).map(([name, value]) =>
        h('div', null, h('dt', null, h('code', null, visible(name))), h('dd', { class: 'num' }, shownSetting(value))))));
    } catch (problem) {
      if (problem.name !== 'AbortError') put(body, failure(problem, load));
    }
  };
  box.addEventListener('toggle', () => box.open && load());
  return box;
}

export function overview(page) {
  page.title('Overview');
  const lines = charts();
  const numbers = tiles();
  const top = h('div', { class: 'tiles' }, numbers.map((n) => n.element));
  const below = h('div', { class: 'columns' });
  const graphs = h('div', { class: 'charts' }, lines.map((line) => line.element));
  const state = h('div', null, loading('Asking the gateway …'));
  const shown = h('div', { class: 'stack', hidden: true }, top, graphs, below);
  put(page.root, h('h1', null, 'Overview'), state, shown, settings(page), maintenance(page));
  let told = null;
  /** Draws only what is new: a command that is being copied stays, and an alert is read out once. */
  const tell = (what, make) => {
    if (what === told) return;
    told = what;
    put(state, make());
  };
  const stop = onPulse((pulse) => {
    if (pulse.stats) {
      shown.hidden = false;
      for (const number of numbers) number.draw(pulse.stats);
      for (const line of lines) line.draw(pulse.samples);
      if (!busyIn(below)) put(below, about(pulse.stats), errors(pulse.metrics));
    }
    if (pulse.problem) tell(explain(pulse.problem), () => failure(pulse.problem));
    else if (pulse.stats?.workers === 0 && pulse.stats.sessions.total === 0) tell(`first steps ${pulse.stats.public}`, () => firstSteps(pulse.stats));
    else if (pulse.stats) tell('', () => null);
  });
  page.signal.addEventListener('abort', stop);
  beatFast(page.signal);
}

const firstSteps = (s) => empty('Nothing is connected yet', 'Attach an agent, then talk to it here under Chat:',
  h('pre', { class: 'block', tabindex: 0 }, `ebbgate agent --id echo --url ws://${s.public}/ws --exec cat`));
