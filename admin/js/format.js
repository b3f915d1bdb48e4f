/** Numbers and times for reading. */
import { h } from './dom.js';

const COUNT = new Intl.NumberFormat('en');
const SHORT = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });
const CLOCK = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const DAY = new Intl.DateTimeFormat('en', { month: 'short', day: 'numeric' });
const YEAR = new Intl.DateTimeFormat('en', { year: 'numeric', month: 'short', day: 'numeric' });
const FULL = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'medium' });

export const count = (n) => COUNT.format(n);
export const short = (n) => (Math.abs(n) < 10000 ? COUNT.format(n) : SHORT.format(n));
export const plural = (n, one, many = one + 's') => `${count(n)} ${n === 1 ? one : many}`;

export function bytes(n) {
  if (n < 1000) return `${n} B`;
  const units = ['kB', 'MB', 'GB', 'TB', 'PB'];
  let i = -1;
  do {
    n /= 1000;
    i += 1;
  } while (n >= 999.95 && i < units.length - 1);
  return `${n < 10 ? n.toFixed(1) : Math.round(n)} ${units[i]}`;
}

/** A latency. */
export function microseconds(us) {
  if (us < 1000) return `${Math.round(us)} µs`;
  if (us < 1e6) return `${us < 1e4 ? (us / 1000).toFixed(1) : Math.round(us / 1000)} ms`;
  return `${(us / 1e6).toFixed(1)} s`;
}

/** A length of time, in its two largest units. */
export function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

function near(seconds, now) {
  const ago = now - seconds;
  if (ago >= -1 && ago < 5) return 'just now';
  if (ago >= 0 && ago < 3600 * 6) return `${span(ago)} ago`;
  if (ago < 0 && ago > -86400) return `in ${span(-ago)}`;
  const date = new Date(seconds * 1000);
  const today = new Date(now * 1000);
  if (date.toDateString() === today.toDateString()) return CLOCK.format(date).slice(0, 5);
  return date.getFullYear() === today.getFullYear() ? `${DAY.format(date)}, ${CLOCK.format(date).slice(0, 5)}` : YEAR.format(date);
}

function stamp(seconds, text) {
  const date = new Date(seconds * 1000);
  if (Number.isNaN(date.getTime())) return h('span', { class: 'soft' }, '–');
  return h('time', { datetime: date.toISOString(), title: FULL.format(date), class: 'num' }, text(date));
}

/** A moment as a <time>, seconds since 1970; null is a dash. */
export function when(seconds) {
  if (seconds === null || seconds === undefined) return h('span', { class: 'soft' }, '–');
  return stamp(seconds, () => near(seconds, Date.now() / 1000));
}

/** A moment to the second as a <time>; with its day when that is not today. */
export function clock(seconds) {
  return stamp(seconds, (date) => {
    const day = date.toDateString() === new Date().toDateString() ? '' : `${DAY.format(date)}, `;
    return day + CLOCK.format(date);
  });
}
