/**
 * Finding a WebSocket, and giving every kind the same four callbacks.
 *
 * A browser and newer Nodes have a global WebSocket; on an older Node the optional
 * package `ws` is used. Nothing else here knows which one it is.
 */
import { EbbgateError } from './errors.js';

/** The WebSocket class to use. @throws EbbgateError `no_websocket` */
export async function findWebSocket(given) {
  if (given) return given;
  if (typeof globalThis.WebSocket === 'function') return globalThis.WebSocket;
  const name = 'ws'; // not a literal in import(), so that bundlers for browsers do not look for it
  try {
    const module = await import(/* @vite-ignore */ /* webpackIgnore: true */ name);
    return module.WebSocket ?? module.default;
  } catch {
    // not beside this package: Node's older search path may know it
  }
  let createRequire;
  try {
    ({ createRequire } = await import(/* @vite-ignore */ /* webpackIgnore: true */ 'node:' + 'module'));
  } catch {
    // no Node
  }
  // npm links a package that is installed from a folder, so `ws` may lie beside the program instead
  const { argv = [] } = globalThis.process ?? {};
  for (const from of createRequire ? [import.meta.url, argv[1]] : []) {
    try {
      const module = createRequire(from)(name);
      return module.WebSocket ?? module;
    } catch {
      // not there either
    }
  }
  throw new EbbgateError('no_websocket', 'this runtime has no WebSocket: install the package "ws" or pass options.WebSocket');
}

/** `http(s)` becomes `ws(s)`, and a bare host gets the path `/ws`. */
export function webSocketUrl(url) {
  const base = globalThis.location === undefined ? undefined : globalThis.location.href;
  let parsed;
  try {
    parsed = new URL(String(url), base);
  } catch {
    throw new EbbgateError('bad_url', `"${url}" is not a gateway's address`);
  }
  if (parsed.protocol === 'http:') parsed.protocol = 'ws:';
  if (parsed.protocol === 'https:') parsed.protocol = 'wss:';
  if (parsed.protocol !== 'ws:' && parsed.protocol !== 'wss:') {
    throw new EbbgateError('bad_url', `a gateway's address starts with ws:, wss:, http: or https:, not ${parsed.protocol}`);
  }
  if (parsed.pathname === '/' || parsed.pathname === '') parsed.pathname = '/ws';
  parsed.hash = '';
  return parsed.href;
}

/**
 * Opens a socket. `on.close` is called exactly once, with
 * `{ code, reason, httpStatus?, retryAfter? }`; nothing is called after it.
 */
export function openSocket(WebSocketClass, url, on) {
  const socket = new WebSocketClass(url);
  let open = false;
  let over = false;
  const end = (out) => {
    if (over) return;
    over = true;
    on.close(out);
  };
  socket.onopen = () => {
    open = true;
    if (!over) on.open();
  };
  socket.onmessage = (message) => over || on.message(message.data);
  // Once open, a close follows and says more. Before that nobody has closed anything yet: some Nodes give a code of
  // their own (1002) then, others no close event at all. Node says why (a certificate, a name), a browser never does.
  socket.onerror = (event) => open || end({ code: 1006, reason: event?.error?.message || event?.message || '', failure: event?.error });
  socket.onclose = (event) => end({ code: (open && event.code) || 1006, reason: event.reason || '' });
  if (typeof socket.on === 'function') {
    socket.on('unexpected-response', (request, response) => {
      request.destroy();
      end({ code: 1006, reason: '', httpStatus: response.statusCode, retryAfter: response.headers['retry-after'] });
    });
  }
  return {
    send: (text) => socket.send(text),
    /** Ends it with `out` as the outcome; `hard` does not wait for the other side's goodbye. */
    close(out, hard = false) {
      end(out);
      try {
        if (hard && typeof socket.terminate === 'function') socket.terminate();
        else if (socket.readyState < 2) socket.close(1000);
      } catch {
        // gone already
      }
    },
  };
}
