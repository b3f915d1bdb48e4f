/** Tokens and signing keys: make, revoke, rotate, withdraw. */
import { claims, get, may, post, remove } from '../api.js';
import { h, put } from '../dom.js';
import { clock, plural, span } from '../format.js';
import { list, table } from '../table.js';
import { code, label, visible } from '../text.js';
import { act, actButton, badge, confirm, copyable, empty, facts, field, panel, submitButton, toast } from '../widgets.js';

const SCOPES = [
  ['read', 'follow sessions'],
  ['write', 'say something'],
  ['agent', 'serve agents'],
  ['admin:read', 'look at everything'],
  ['admin', 'change everything'],
];
const LIFETIMES = [['300', '5 minutes'], ['3600', '1 hour'], ['43200', '12 hours'], ['604800', '7 days'], ['2592000', '30 days']];

const words = (text) => text.split(/[\s,]+/).filter(Boolean);

function minted(answer) {
  return h('div', { class: 'minted', role: 'status' },
    h('p', null, h('strong', null, 'The token. '), 'It is shown only now.'),
    copyable(answer.token, 'Token'),
    facts([['For', label(answer.sub)], ['Scope', label(answer.scope)], ['Ends', clock(answer.expires)], ['Id (jti)', code(answer.jti)]]));
}

function scopeBoxes() {
  const boxes = SCOPES.map(([name, does]) => {
    const allowed = may(name);
    const box = h('input', { type: 'checkbox', value: name, disabled: !allowed, checked: allowed && (name === 'read' || name === 'write') });
    return { box, element: h('label', { class: 'check', title: allowed ? null : 'Your own token does not have it' }, box, h('code', null, name), h('small', null, does)) };
  });
  return {
    element: h('fieldset', null, h('legend', null, 'Scope'), boxes.map((b) => b.element)),
    value: () => boxes.filter((b) => b.box.checked).map((b) => b.box.value).join(' '),
  };
}

function lifetimes() {
  const left = Number(claims()?.exp) - Date.now() / 1000;
  const fitting = LIFETIMES.filter(([s]) => !(Number(s) > left));
  return h('select', null, h('option', { value: '' }, left < 3600 ? `as long as mine (${span(left)})` : 'default (1 hour)'),
    fitting.map(([s, text]) => h('option', { value: s }, text)));
}

function mintPanel(page) {
  const sub = h('input', { required: true, maxlength: 128, autocomplete: 'off' });
  const scopes = scopeBoxes();
  const agents = h('input', { autocomplete: 'off', placeholder: 'as mine' });
  const ids = h('input', { autocomplete: 'off', placeholder: 'its own only' });
  const ttl = lifetimes();
  const result = h('div');
  const button = submitButton('Make the token', 'main');
  const submit = (event) => {
    event.preventDefault();
    act(button, async () => {
      if (!scopes.value()) throw Object.assign(new Error(), { title: 'A token needs a scope', detail: 'Choose at least one' });
      const body = { sub: sub.value.trim(), scope: scopes.value() };
      if (words(agents.value).length) body.agents = words(agents.value);
      if (words(ids.value).length) body.sessions = words(ids.value);
      if (ttl.value) body.ttl = Number(ttl.value);
      const answer = await post('tokens', body, { signal: page.signal });
      put(result, minted(answer));
    });
  };
  return panel('Make a token',
    h('form', { class: 'form', onsubmit: submit },
      field('For (sub)', sub, 'Who it names; sessions that it begins belong to this name.'),
      scopes.element,
      field('Agents', agents, 'Ids with commas or blanks between; * is all. A worker needs its own here.'),
      field('Further sessions', ids, 'Sessions it may enter beside its own; * is all.'),
      field('Good for', ttl, 'Never longer, and never with more rights, than the token you signed in with.'),
      h('div', { class: 'buttons' }, button)),
    result);
}

function revokePanel(again) {
  const what = h('select', null, h('option', { value: 'sub' }, 'all tokens of a sub'), h('option', { value: 'jti' }, 'one token, by its id (jti)'));
  const value = h('input', { required: true, maxlength: 128, autocomplete: 'off' });
  const button = submitButton('Revoke', 'danger');
  const submit = async (event) => {
    event.preventDefault();
    const name = value.value.trim();
    const mine = claims() ?? {};
    const own = mine[what.value] === name;
    const sure = await confirm('Revoke?', [
      'Connections of ', label(name), ' end at once. ', own && h('strong', null, 'This is the token you signed in with.'),
    ], 'Revoke');
    if (!sure) return;
    await act(button, async () => {
      await post('tokens/revoke', { [what.value]: name });
      toast(`${visible(name)} is revoked`);
      value.value = '';
      if (!own) again();
    });
  };
  return h('form', { class: 'inline-form', onsubmit: submit }, field('Revoke', what), field('Which', value), button);
}

const revokedColumns = [
  { head: 'What', cell: (r) => badge(r.jti === undefined ? 'sub' : 'token') },
  { head: 'Name', class: 'wide', cell: (r) => code(r.jti ?? r.sub) },
  { head: 'Remembered until', class: 'right', cell: (r) => clock(r.until) },
];

function revocations(page) {
  const rows = list(page, {
    what: 'revocations',
    words: ['Back', 'More'],
    async load(next, signal) {
      const answer = await get('tokens/revoked', { limit: 50, next }, signal);
      return { rows: answer.revoked, next: answer.next };
    },
    draw: (found) => table('Revocations', revokedColumns, found, (r) => r.jti ?? r.sub),
    none: () => empty('Nothing is revoked', 'A revocation is kept until no token of it can be alive.'),
  });
  return panel('Revoke', revokePanel(rows.reload), rows.element);
}

function keys(page) {
  const again = () => rows.reload();
  const withdraw = async (key) => {
    const sure = await confirm('Withdraw this key?', ['Every token that ', code(key.kid), ' signed is void, and its connections end at once.'], 'Withdraw');
    if (!sure) return;
    await remove(`keys/${encodeURIComponent(key.kid)}`);
    toast(`Key ${visible(key.kid)} is withdrawn`);
    again();
  };
  const rotate = async () => {
    const sure = await confirm('Rotate?', 'A new key signs from now on. Tokens of the older ones stay good until those are withdrawn.', 'Make a new key');
    if (!sure) return;
    const key = await post('keys/rotate');
    toast(`Key ${visible(key.kid)} signs from now on`);
    again();
  };
  let total = 0;
  const columns = [
    { head: 'Key', cell: (k) => code(k.kid) },
    { head: 'Use', cell: (k) => (k.signing ? badge('signs', 'good') : badge('verifies only')) },
    { head: 'Public key', class: 'wide', cell: (k) => code(k.x) },
    { head: '', class: 'right', cell: (k) => total > 1 && actButton('Withdraw', () => withdraw(k), { kind: 'quiet danger', label: `Withdraw key ${visible(k.kid)}` }) },
  ];
  const rows = list(page, {
    what: 'keys',
    async load(next, signal) {
      const answer = await get('keys', undefined, signal);
      total = answer.keys.length;
      return { rows: answer.keys, next: null };
    },
    draw: (found) => [h('p', { class: 'soft' }, `${plural(found.length, 'key')}. To change keys without cutting anyone off: rotate, let old tokens run out, then withdraw.`),
      table('Keys', columns, found, (k) => k.kid)],
    none: () => empty('No keys', 'The gateway verifies with none: nobody can connect. Rotate to make one.'),
  });
  return panel('Signing keys', rows.element, h('div', { class: 'buttons' }, actButton('Rotate', rotate)));
}

export function access(page) {
  page.title('Tokens and keys');
  put(page.root, h('h1', null, 'Tokens and keys'),
    h('div', { class: 'columns two' }, mintPanel(page), h('div', { class: 'stack' }, revocations(page), keys(page))));
}
