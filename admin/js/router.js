/**
 * Addresses after the #: `#/sessions/ID?view=raw`. Each page gets an object with its element, its
 * parameters, a signal that is aborted when it is left, and timers that rest while nobody looks.
 */
import { put } from './dom.js';

/** The address of a page. */
export function link(path, query = {}) {
  const text = new URLSearchParams(Object.entries(query).filter(([, v]) => v !== '' && v !== null && v !== undefined)).toString();
  const segments = (Array.isArray(path) ? path : [path]).map(encodeURIComponent).join('/');
  return `#/${segments}${text ? `?${text}` : ''}`;
}

export const go = (path, query) => {
  location.hash = link(path, query);
};

function parse() {
  const [path, query = ''] = location.hash.replace(/^#\/?/, '').split('?', 2);
  const parts = path.split('/').filter(Boolean).map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  });
  return { parts, query: new URLSearchParams(query) };
}

let leave = new AbortController();

class Page {
  constructor(root, parts, query, signal) {
    this.root = root;
    this.name = parts[0] ?? 'overview';
    this.id = parts[1];
    this.parts = parts;
    this.query = query;
    this.signal = signal;
    this.keepScroll = false; // set by pages that choose where to look
  }

  /** Runs `fn` every `ms` while the page is shown and the tab is visible. */
  every(ms, fn) {
    const timer = setInterval(() => document.hidden || fn(), ms);
    const look = () => document.hidden || fn();
    document.addEventListener('visibilitychange', look, { signal: this.signal });
    this.signal.addEventListener('abort', () => clearInterval(timer));
  }

  /** Writes filters into the address, without leaving the page. */
  setQuery(values) {
    if (this.signal.aborted) return;
    this.query = new URLSearchParams(values);
    history.replaceState(null, '', link(this.parts.length ? this.parts : ['overview'], values));
  }

  title(text) {
    document.title = `${text} – Ebbgate`;
  }
}

/** Shows the page that the address names. `pages`: name → show(page). */
export async function route(root, pages, changed) {
  leave.abort();
  leave = new AbortController();
  for (const box of document.querySelectorAll('dialog[open]')) box.close(); // its question was the old page's
  const { parts, query } = parse();
  const page = new Page(root, parts, query, leave.signal);
  put(root);
  changed(page);
  await (Object.hasOwn(pages, page.name) ? pages[page.name] : pages.missing)(page);
  if (page.signal.aborted) return;
  const heading = root.querySelector('h1');
  if (heading) {
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
  }
  if (!page.keepScroll) scrollTo(0, 0);
}

/** Leaves the page that is shown. */
export const leavePage = () => leave.abort();
