/** The page before all others: a token is pasted once and kept in this tab. */
import { call, claims, signIn } from './api.js';
import { h, put } from './dom.js';
import { explain, field } from './widgets.js';

const COMMAND = 'ebbgate token --sub you --scope "admin read write"';

/** `problem`: why one is here again, or null. `enter` is called when the token is good. */
export function showSignIn(problem, enter) {
  document.title = 'Sign in – Ebbgate';
  const input = h('input', { type: 'password', autocomplete: 'off', spellcheck: 'false', required: true, autofocus: true });
  const button = h('button', { class: 'main' }, 'Sign in');
  const says = h('p', { class: 'signin-says', role: 'alert' });
  if (problem) {
    says.textContent = claims() === null && problem.code === 'auth_unauthorized'
      ? 'The token is no longer good: it expired or was revoked. Paste a fresh one.'
      : explain(problem);
  }

  async function submit(event) {
    event.preventDefault();
    const text = input.value.trim().replace(/^Bearer +/i, '');
    button.disabled = true;
    put(says);
    try {
      await call('GET', 'stats', { auth: text });
      signIn(text);
      enter();
    } catch (refused) {
      says.textContent = refused.code === 'insufficient_scope'
        ? 'This token is good, but not for the console: it needs the scope admin, or admin:read to look only.'
        : refused.code === 'unreachable' ? explain(refused)
          : 'The gateway refuses this token: it is not whole, expired, revoked, or of another gateway.';
      input.select();
    } finally {
      button.disabled = false;
    }
  }

  return h('main', { class: 'signin' },
    h('img', { src: '/favicon.svg', alt: '', width: 40, height: 40 }),
    h('h1', null, 'Ebbgate console'),
    h('form', { class: 'panel', onsubmit: submit },
      field('Token', input, 'It stays in this tab and ends with it.'),
      says,
      button),
    h('p', { class: 'soft' }, 'Make one on the gateway’s machine:'),
    h('pre', { class: 'block', tabindex: 0 }, COMMAND),
    h('p', { class: 'soft' }, h('code', null, 'admin:read'), ' is enough to look; ', h('code', null, 'read write'), ' beside it lets you chat.'));
}
