/** The frame around every page: navigation, how the gateway is, who is signed in. */
import { claims, may, signOut } from './api.js';
import { h, put } from './dom.js';
import { span } from './format.js';
import { onPulse } from './pulse.js';
import { link } from './router.js';
import { label } from './text.js';

const PAGES = [
  ['overview', 'Overview'],
  ['sessions', 'Sessions'],
  ['agents', 'Agents'],
  ['connections', 'Connections'],
  ['dead', 'Dead letters'],
  ['chat', 'Chat'],
  ['access', 'Tokens and keys'],
  ['audit', 'Audit log'],
];
const THEMES = [['', 'System'], ['light', 'Light'], ['dark', 'Dark']];

function themePicker() {
  const pick = h('select', { 'aria-label': 'Colours' }, THEMES.map(([value, name]) => h('option', { value }, name)));
  pick.value = document.documentElement.dataset.theme ?? '';
  pick.addEventListener('change', () => {
    document.documentElement.dataset.theme = pick.value;
    if (pick.value) localStorage.setItem('ebbgate.theme', pick.value);
    else localStorage.removeItem('ebbgate.theme');
  });
  return pick;
}

function judge({ problem, stats, ready }) {
  if (problem) return ['bad', problem.code === 'unreachable' ? 'No answer' : problem.title];
  if (!stats) return ['', 'Connecting …'];
  if (stats.draining) return ['warn', 'Draining'];
  if (!stats.storage.ok) return ['bad', 'Storage fails'];
  if (ready?.failing?.length) return ['bad', `Not ready: ${ready.failing.join(', ')}`];
  if (ready?.warnings?.length) return ['warn', `Low: ${ready.warnings.join(', ')}`];
  return ['good', 'Serving'];
}

function who() {
  const mine = claims() ?? {};
  const left = h('small');
  const draw = () => {
    const seconds = Number(mine.exp) - Date.now() / 1000;
    left.textContent = Number.isFinite(seconds) ? (seconds > 0 ? `token ends in ${span(seconds)}` : 'token has ended') : '';
  };
  draw();
  return {
    draw,
    element: h('div', { class: 'who' }, label(mine.sub), h('small', null, may('admin') ? 'may change things' : 'may only look'), left),
  };
}

/** `{ element, main, moved(page) }`. */
export function frame() {
  const main = h('main', { id: 'main', tabindex: -1 });
  const links = new Map(PAGES.map(([name, text]) => [name, h('a', { href: link(name) }, text)]));
  const light = h('span', { class: 'light' });
  const state = h('span', { role: 'status' });
  const menu = h('div', { class: 'menu', id: 'menu' });
  const toggle = h('button', { type: 'button', class: 'menu-button', 'aria-controls': 'menu', 'aria-expanded': 'false' }, 'Menu');
  const open = (on) => {
    menu.classList.toggle('open', on);
    toggle.setAttribute('aria-expanded', String(on));
  };
  toggle.addEventListener('click', () => open(!menu.classList.contains('open')));
  const me = who();
  put(menu,
    h('nav', { 'aria-label': 'Pages' }, h('ul', null, [...links.values()].map((a) => h('li', null, a)))),
    h('div', { class: 'side-end' }, me.element, h('div', { class: 'side-tools' }, themePicker(),
      h('button', { type: 'button', onclick: () => signOut() }, 'Sign out'))));
  menu.addEventListener('keydown', (event) => {
    if (event.key === 'Escape' && menu.classList.contains('open')) {
      open(false);
      toggle.focus();
    }
  });
  const stop = onPulse((pulse) => {
    if (!main.isConnected) {
      stop();
      return;
    }
    const [kind, text] = judge(pulse);
    light.className = `light ${kind}`;
    if (state.textContent !== text) state.textContent = text;
    me.draw();
  });
  const skip = h('a', { class: 'skip', href: '#main', onclick: (e) => (e.preventDefault(), main.focus()) }, 'Skip to the page');
  const side = h('header', { class: 'side' },
    h('div', { class: 'brand' }, h('img', { src: '/favicon.svg', alt: '', width: 22, height: 22 }), h('a', { href: link('overview') }, 'Ebbgate'),
      h('span', { class: 'gate-state' }, light, state)),
    toggle, menu);
  return {
    element: h('div', { class: 'frame' }, skip, side, main),
    main,
    moved(page) {
      open(false);
      for (const [name, a] of links) {
        if (name === page.name) a.setAttribute('aria-current', 'page');
        else a.removeAttribute('aria-current');
      }
    },
  };
}
