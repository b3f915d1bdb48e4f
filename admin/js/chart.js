/**
 * Small line charts over the last five minutes. Lines are SVG, words are HTML beside it; pointing at
 * a chart, or moving over it with the arrow keys, reads single moments.
 */
import { h, put, svg } from './dom.js';

const WIDTH = 600;
const HEIGHT = 120;
const SPAN_S = 300;
const CLOCK = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });

/** The smallest 1, 2 or 5 times a power of ten that is not below `n`. */
export function ceiling(n) {
  if (!(n > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(n));
  return [1, 2, 5, 10].map((k) => k * power).find((k) => k >= n * 0.999999);
}

function points(samples, name, end, top) {
  const parts = [];
  let pen = 'M';
  for (const s of samples) {
    if (s[name] === null || s[name] === undefined) {
      pen = 'M';
      continue;
    }
    const x = WIDTH - ((end - s.at) / SPAN_S) * WIDTH;
    const y = HEIGHT - (s[name] / top) * HEIGHT;
    parts.push(`${pen}${x.toFixed(1)} ${y.toFixed(1)}`);
    pen = 'L';
  }
  // A single moment is drawn as a dot (a round cap needs a line, however short).
  return parts.join('').replace(/M(\S+ \S+)(?=M|$)/g, 'M$1h0.01');
}

/**
 * @param o `{ title, format(n), least, lines: [{ name, title, kind }] }`: `least` keeps the scale from shrinking
 *          below a value; `name` is the sample's member
 * @returns `{ element, draw(samples) }`
 */
export function chart(o) {
  const paths = o.lines.map((line) => svg('path', { class: `line ${line.kind}`, 'vector-effect': 'non-scaling-stroke' }));
  const cursor = svg('path', { class: 'cursor', 'vector-effect': 'non-scaling-stroke' });
  const rules = [0.5, 1].map((part) => svg('path', { class: 'rule', 'vector-effect': 'non-scaling-stroke', d: `M0 ${HEIGHT * (1 - part)}H${WIDTH}` }));
  const picture = svg('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', 'aria-hidden': 'true' }, rules, paths, cursor);
  const now = h('div', { class: 'chart-now' });
  const top = h('span', { class: 'chart-top num' });
  const plot = h('div', { class: 'chart-plot', tabindex: 0, role: 'img' }, picture, top);
  const element = h('figure', { class: 'panel chart' },
    h('figcaption', null, h('h2', null, o.title), now),
    plot,
    h('div', { class: 'chart-ends' }, h('span', null, '5 min ago'), h('span', null, 'now')));
  let samples = [];
  let held = null; // the moment that is read; null: the last

  const value = (s, line) => (s?.[line.name] === null || s?.[line.name] === undefined ? '–' : o.format(s[line.name]));
  function say() {
    const s = held ?? samples.at(-1);
    put(now,
      held && h('span', { class: 'soft num' }, CLOCK.format(new Date(held.at * 1000))),
      o.lines.map((line) => h('span', null, o.lines.length > 1 && h('span', { class: `key ${line.kind}` }),
        o.lines.length > 1 && h('span', { class: 'soft' }, line.title), h('strong', { class: 'num' }, value(s, line)))));
    const x = held && WIDTH - ((samples.at(-1).at - held.at) / SPAN_S) * WIDTH;
    cursor.setAttribute('d', held ? `M${x.toFixed(1)} 0V${HEIGHT}` : '');
  }
  function read(index) {
    held = index === null ? null : samples[Math.max(0, Math.min(samples.length - 1, index))] ?? null;
    say();
  }
  plot.addEventListener('pointermove', (event) => {
    if (samples.length === 0) return;
    const box = plot.getBoundingClientRect();
    const at = samples.at(-1).at - (1 - (event.clientX - box.left) / box.width) * SPAN_S;
    const near = samples.reduce((best, s, i) => (Math.abs(s.at - at) < Math.abs(samples[best].at - at) ? i : best), 0);
    read(near);
  });
  plot.addEventListener('pointerleave', () => read(null));
  plot.addEventListener('blur', () => read(null));
  plot.addEventListener('keydown', (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined || samples.length === 0) return;
    event.preventDefault();
    read((held ? samples.indexOf(held) : samples.length - 1) + step);
  });

  return {
    element,
    draw(list) {
      samples = list;
      if (held && !samples.includes(held)) held = null;
      const values = samples.flatMap((s) => o.lines.map((line) => s[line.name] ?? 0));
      const highest = Math.max(0, ...values);
      const scale = Math.max(ceiling(highest), o.least);
      const end = samples.at(-1)?.at ?? 0;
      o.lines.forEach((line, i) => paths[i].setAttribute('d', points(samples, line.name, end, scale)));
      put(top, o.format(scale));
      const words = o.lines.map((line) => `${line.title}: ${value(samples.at(-1), line)}`).join(', ');
      plot.setAttribute('aria-label', `${o.title}, last five minutes. Now ${words}. Highest ${o.format(highest)}. Arrow keys read moments.`);
      say();
    },
  };
}
