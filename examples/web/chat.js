// A whole chat page: streaming, stop, and resume after a reload, a lost network or a restarted gateway.
// Serve the project's folder (python3 -m http.server --bind 127.0.0.1) and open /examples/web/.
// The form can be filled from the address: #agent=echo&token=…
import { connect, LocalStorageStore, Turns } from '../../clients/js/src/index.js';

const $ = (id) => document.getElementById(id);
const enter = $('enter');
const kept = new LocalStorageStore();
let session = null;
let leaving = new AbortController();
let turns = new Turns();
let items = new Map(); // turn -> { mine, theirs }

/** The page draws the whole conversation from the log, so a reload begins at its start. */
const store = {
  load(key) {
    const state = kept.load(key);
    return state && { ...state, epoch: null, cursor: 0 };
  },
  save: (key, state) => kept.save(key, state),
  remove: (key) => kept.remove(key),
};

function bubble(kind) {
  const item = document.createElement('li');
  item.className = kind;
  $('talk').append(item);
  return item;
}

function draw(turn) {
  let item = items.get(turn.turn);
  if (!item) items.set(turn.turn, (item = { mine: bubble('mine'), theirs: bubble('theirs') }));
  item.mine.textContent = typeof turn.message === 'string' ? turn.message : JSON.stringify(turn.message ?? '');
  item.theirs.textContent = turn.text || (turn.status === 'waiting' ? '…' : '');
  if (turn.status === 'aborted') item.theirs.textContent += ' (stopped)';
  if (turn.status === 'error') item.theirs.textContent += ' (failed)';
  item.theirs.scrollIntoView({ block: 'end' });
}

function redraw() {
  $('talk').replaceChildren();
  items = new Map();
  turns.list().forEach(draw);
}

function tell({ state, delayMs, error }) {
  $('status').textContent = {
    connecting: 'Connecting …',
    replaying: 'Catching up …',
    open: 'Connected.',
    waiting: `No connection. Next try in ${Math.ceil((delayMs ?? 0) / 1000)} s.`,
    closed: error ? `Closed: ${error.message} (${error.code})` : 'Closed.',
  }[state];
}

async function start() {
  leaving.abort();
  const { signal } = (leaving = new AbortController());
  const { url, agent, token } = Object.fromEntries(new FormData(enter));
  const key = `${url} ${agent}`;
  for (const [name, value] of Object.entries({ url, agent, token })) sessionStorage.setItem(name, value);
  turns = new Turns();
  redraw();
  try {
    session = await connect({ url, agent, token: token || undefined, key, store, signal, onStatus: tell });
    $('say').hidden = false;
    $('say').elements.text.focus();
    for await (const event of session) {
      const turn = turns.apply(event);
      if (event.type === 'snapshot') redraw();
      else if (turn) draw(turn);
    }
  } catch (error) {
    if (signal.aborted) return;
    if (error.code === 'session_not_found' || error.code === 'session_closed') store.remove(key);
    tell({ state: 'closed', error });
  }
}

/** Leaves the session. Until the next one is open there is nobody to say anything to. */
async function end() {
  $('say').hidden = true;
  leaving.abort(); // also a connection that is still being tried
  await session?.close();
}

enter.addEventListener('submit', async (event) => {
  event.preventDefault();
  await end();
  start();
});
$('say').addEventListener('submit', (event) => {
  event.preventDefault();
  const field = event.target.elements.text;
  if (!field.value) return;
  session.send(field.value).catch((error) => ($('status').textContent = `Not sent: ${error.message}`));
  field.value = '';
});
$('stop').addEventListener('click', () => session.abort({ reason: 'the user pressed stop' }).catch(() => {}));
$('fresh').addEventListener('click', async () => {
  const { url, agent } = Object.fromEntries(new FormData(enter));
  await end();
  store.remove(`${url} ${agent}`);
  start();
});

const given = new URLSearchParams(location.hash.slice(1));
for (const name of ['url', 'agent', 'token']) {
  const value = given.get(name) ?? sessionStorage.getItem(name);
  if (value) enter.elements[name].value = value;
}
history.replaceState(null, '', location.pathname); // a token does not stay in the address
if (enter.elements.token.value) start();
