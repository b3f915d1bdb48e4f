/** The console: signing in, the frame around the pages, and which page is which. */
import { get, onSignedOut, signIn, signOut, token } from './api.js';
import { h, put } from './dom.js';
import { dropDrafts } from './drafts.js';
import { frame } from './frame.js';
import { startPulse, stopPulse } from './pulse.js';
import { link, leavePage, route } from './router.js';
import { showSignIn } from './signin.js';
import { empty, failure, toast } from './widgets.js';
import { overview } from './pages/overview.js';
import { sessions } from './pages/sessions.js';
import { session } from './pages/session.js';
import { agents } from './pages/agents.js';
import { connections } from './pages/connections.js';
import { dead } from './pages/dead.js';
import { access } from './pages/access.js';
import { audit } from './pages/audit.js';
import { chat } from './pages/chat.js';

const pages = {
  overview,
  sessions: (page) => (page.id === undefined ? sessions(page) : session(page)),
  agents,
  connections,
  dead,
  access,
  audit,
  chat,
  missing(page) {
    page.title('No such page');
    put(page.root, h('h1', null, 'No such page'), empty('This address leads nowhere', 'Go on from the overview.', h('a', { class: 'button', href: link('overview') }, 'Overview')));
  },
};

let shell = null;

async function showPage() {
  try {
    await route(shell.main, pages, shell.moved);
  } catch (problem) {
    if (problem.name === 'AbortError' || !token()) return;
    put(shell.main, h('h1', { tabindex: -1 }, 'Something went wrong'), failure(problem, showPage));
  }
}

function enter() {
  shell = frame();
  put(document.body, shell.element, h('div', { id: 'toasts' }));
  startPulse();
  showPage();
}

function leave(problem) {
  if (!problem) dropDrafts();
  shell = null;
  leavePage();
  stopPulse();
  put(document.body, h('div', { id: 'toasts' }));
  document.body.prepend(showSignIn(problem, enter));
}

/** Takes a token out of the address, which must not keep it. @returns whether there was one */
function takeToken() {
  const found = /^#token=([A-Za-z0-9._~+/=-]+)$/.exec(location.hash);
  if (!found) return null;
  history.replaceState(null, '', location.pathname + link('overview'));
  return found[1];
}

async function changed() {
  const given = takeToken();
  if (given) {
    signIn(given);
    enter();
  } else if (shell) {
    await showPage();
  }
}

document.documentElement.dataset.theme = localStorage.getItem('ebbgate.theme') ?? '';
onSignedOut(leave);
addEventListener('hashchange', changed);
addEventListener('unhandledrejection', (event) => {
  if (event.reason?.name === 'AbortError') event.preventDefault();
  else if (document.getElementById('toasts')) toast(`This page has a fault: ${event.reason?.message}`, 'bad');
});

const given = takeToken();
if (given) signIn(given);
if (token()) {
  enter();
  get('stats').catch(() => {}); // a token that is void leads to the sign-in page at once
} else {
  signOut();
}
