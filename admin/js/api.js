/**
 * Talking to the admin API. The token lives in sessionStorage (this tab, until it is closed) and
 * travels in the Authorization header, nowhere else.
 */
const KEY = 'ebbgate.token';
const API = '/api/v1';

/** What went wrong, for people: `title`, `detail`, `nextStep`, and the API's stable `code`. */
export class Problem extends Error {
  constructor(body, status) {
    super(body.title);
    this.name = 'Problem';
    this.title = body.title;
    this.detail = body.detail ?? '';
    this.code = body.code;
    this.status = status;
    this.nextStep = body.next_step;
    this.field = body.field;
    this.requiredScope = body.required_scope;
  }
}

const listeners = new Set();
/** Calls `fn(problem|null)` when the token is refused or given up. */
export const onSignedOut = (fn) => listeners.add(fn);

export const token = () => sessionStorage.getItem(KEY);

export function signIn(text) {
  sessionStorage.setItem(KEY, text);
}

export function signOut(problem = null) {
  sessionStorage.removeItem(KEY);
  for (const fn of listeners) fn(problem);
}

/** The token's claims as they stand in it (the gateway alone judges them); null when it has no such form. */
export function claims(text = token()) {
  try {
    const raw = atob(text.split('.')[1].replace(/-/g, '+').replace(/_/g, '/'));
    const parsed = JSON.parse(new TextDecoder().decode(Uint8Array.from(raw, (c) => c.charCodeAt(0))));
    return typeof parsed === 'object' ? parsed : null;
  } catch {
    return null;
  }
}

/** Whether the token has this scope. */
export function may(scope) {
  const scopes = String(claims()?.scope ?? '').split(' ');
  return scopes.includes(scope) || (scope === 'admin:read' && scopes.includes('admin'));
}

async function problemOf(response) {
  let body = null;
  try {
    body = await response.json();
  } catch {
    // not ours: something between us and the gateway answered
  }
  const known = typeof body?.code === 'string';
  const problem = new Problem(known ? body : {
    code: `http_${response.status}`,
    title: `The answer was HTTP ${response.status}`,
    detail: 'It did not come from the gateway. Look at what stands between it and this browser.',
  }, response.status);
  problem.body = body;
  return problem;
}

/** One request; the Response if it is 2xx. @throws Problem, or AbortError when `signal` says so */
export async function request(method, path, { query, body, headers, signal, auth = token() } = {}) {
  const asked = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== null && value !== undefined && value !== '') asked.set(name, value);
  }
  const text = asked.toString();
  let response;
  try {
    response = await fetch((path.startsWith('/') ? path : `${API}/${path}`) + (text ? `?${text}` : ''), {
      method,
      signal,
      cache: 'no-store',
      credentials: 'omit',
      headers: {
        ...(auth ? { Authorization: `Bearer ${auth}` } : {}),
        ...(body === undefined ? {} : { 'Content-Type': 'application/json' }),
        ...headers,
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (cause) {
    if (cause.name === 'AbortError') throw cause;
    throw new Problem({
      code: 'unreachable',
      title: 'The gateway does not answer',
      detail: 'It may be restarting. This page tries again by itself where it shows live numbers.',
    }, 0);
  }
  if (response.ok) return response;
  const problem = await problemOf(response);
  if (response.status === 401 && auth !== null && auth === token()) signOut(problem);
  throw problem;
}

/** One request; its JSON, or with `text: true` its text, or null for 204. */
export async function call(method, path, options) {
  const response = await request(method, path, options);
  if (response.status === 204) return null;
  return options?.text ? response.text() : response.json();
}

export const get = (path, query, signal) => call('GET', path, { query, signal });
export const post = (path, body = {}, options = {}) => call('POST', path, { body, ...options });
export const remove = (path) => call('DELETE', path);

/** A path segment. */
export const seg = (text) => encodeURIComponent(text);
