/**
 * What can go wrong, and what a close or a refusal means.
 *
 * `judge()` is the whole reconnect policy in one pure function: it reads how a
 * connection ended and says whether to come back, and not before when. It holds
 * no state, so the conformance suite can ask it about every code.
 */

export class EbbgateError extends Error {
  /**
   * @param {string} code    stable code, the gateway's where it has one
   * @param {string} message for people
   * @param {object} [more]  nextStep, retryAfterSeconds, field, ref, closeCode, httpStatus, cause
   */
  constructor(code, message, more = {}) {
    super(message || code, more.cause === undefined ? undefined : { cause: more.cause });
    this.name = 'EbbgateError';
    this.code = code;
    for (const key of ['nextStep', 'retryAfterSeconds', 'field', 'ref', 'requiredScope', 'closeCode', 'httpStatus']) {
      if (more[key] !== undefined && more[key] !== null) this[key] = more[key];
    }
  }
}

/** Makes an error of an `error` or `hello_error` frame. */
export function errorFromFrame(frame, more = {}) {
  return new EbbgateError(String(frame.code ?? 'unknown'), frame.message, {
    nextStep: frame.next_step ?? frame.next,
    retryAfterSeconds: frame.retry_after_seconds,
    field: frame.field,
    ref: frame.ref,
    requiredScope: frame.required_scope,
    ...more,
  });
}

/** Levels of objects and arrays in a frame, itself among them. */
const NESTING_MAX = 32;
const UNSAYABLE = /[\0\p{Surrogate}]/u;

/** The text with U+FFFD for what no frame may hold. */
export function plainText(text) {
  return text.replace(new RegExp(UNSAYABLE, 'gu'), '\ufffd');
}

function checkValue(value, depth) {
  if (typeof value === 'string') {
    if (UNSAYABLE.test(value)) throw new EbbgateError('invalid_json', 'a text holds U+0000 or half of a surrogate pair');
  } else if (typeof value === 'object' && value !== null) {
    if (depth > NESTING_MAX) throw new EbbgateError('invalid_json', `nested more than ${NESTING_MAX} deep`);
    for (const [name, item] of Object.entries(value)) {
      checkValue(name, depth);
      checkValue(item, depth + 1);
    }
  }
}

/**
 * Refuses what the gateway would, and could not say which frame it was: that frame would wait for ever.
 * @returns a copy: a frame that is sent once more must not have changed with what the application gave
 * @throws EbbgateError `invalid_json`, `payload_too_large`
 */
export function checkFrame(frame, maxPayload) {
  const text = JSON.stringify(frame);
  const copy = JSON.parse(text);
  checkValue(copy, 1);
  const bytes = maxPayload > 0 ? new TextEncoder().encode(text).length : 0;
  if (bytes > maxPayload) throw new EbbgateError('payload_too_large', `the frame has ${bytes} bytes, the gateway takes ${maxPayload}`);
  return copy;
}

/** Refuses an id the gateway would; its refusal could not name the frame. @throws EbbgateError `invalid_request` */
export function checkId(name, value) {
  const bytes = typeof value === 'string' ? new TextEncoder().encode(value).length : 0;
  if (bytes < 1 || bytes > 128) throw new EbbgateError('invalid_request', `${name}: must be a text of 1 to 128 bytes`, { field: name });
}

/** Publish errors that say "not now": the same id is sent again later. */
export const RETRYABLE = new Set(['rate_limited', 'queue_full', 'storage_unavailable', 'internal', 'not_joined']);

/** Seconds to stay away when the gateway complained about our behaviour but named no time. */
const COOL_DOWN_SECONDS = 5;
/** Closed for what we sent: the same bytes would be refused again. */
const OUR_FAULT = new Set([1002, 1003, 1007, 1008, 1010]);
const COOL_DOWN = new Set([4008, 4028, 4029]);

function seconds(value) {
  const n = Number(value);
  return Number.isFinite(n) && n > 0 ? n : 0;
}

function judgeRefusal(refusal, closeCode) {
  const error = errorFromFrame(refusal, { closeCode });
  const floor = seconds(refusal.retry_after_seconds);
  switch (error.nextStep) {
    case 'wait_then_retry':
      return { action: 'retry', floor, error };
    case 'reauthenticate':
      return { action: 'reauth', floor, error };
    case 'do_not_retry':
    case 'upgrade_client':
    case 'downgrade_client':
      return { action: 'stop', floor: 0, error };
    default:
      return { action: closeCode === 4003 ? 'stop' : 'retry', floor, error };
  }
}

function judgeHttp(status, retryAfter) {
  const error = new EbbgateError('http_' + status, 'the gateway answered the upgrade with HTTP ' + status, {
    httpStatus: status,
  });
  if (status === 401) return { action: 'reauth', floor: 0, error };
  if (status >= 400 && status < 500 && status !== 408 && status !== 425 && status !== 429) {
    return { action: 'stop', floor: 0, error };
  }
  return { action: 'retry', floor: seconds(retryAfter), error };
}

/**
 * How to go on after a connection ended.
 *
 * @param {object} out  `{ code, reason, refusal, httpStatus, retryAfter, reconnectMs, local, failure }`
 * @returns {{action: 'retry'|'reauth'|'stop', floor: number, error: EbbgateError}} floor in seconds
 */
export function judge(out) {
  if (out.refusal) return judgeRefusal(out.refusal, out.code);
  if (out.httpStatus) return judgeHttp(out.httpStatus, out.retryAfter);
  const code = out.code ?? 1006;
  const say = (name) =>
    new EbbgateError(name, out.reason || `the connection closed with code ${code}`, {
      closeCode: code,
      cause: out.failure,
    });
  if (code === 4001) return { action: 'reauth', floor: 0, error: say('credentials_expired') };
  if (code === 4003) return { action: 'stop', floor: 0, error: say('handshake_refused') };
  if (OUR_FAULT.has(code)) return { action: 'stop', floor: 0, error: say('protocol_error') };
  const told = seconds(out.reconnectMs) / 1000;
  const floor = told || (COOL_DOWN.has(code) ? COOL_DOWN_SECONDS : 0);
  return { action: 'retry', floor, error: say('connection_lost') };
}

/** Calls one of the application's callbacks. A mistake in it is reported, and stops nothing of ours. */
export function tell(callbacks, name, value) {
  try {
    callbacks[name]?.(value);
  } catch (error) {
    globalThis.queueMicrotask(() => {
      throw error;
    });
  }
}
