/**
 * Exponential backoff with jitter. A wait the gateway asked for is a floor: the
 * jittered delay is added to it, so that many clients told the same number do
 * not come back in the same instant.
 */
export class Backoff {
  /** @param {object} [options] `{ initialMs, maxMs, factor, jitter, attempts, random }` */
  constructor(options = {}) {
    this.initialMs = options.initialMs ?? 500;
    this.maxMs = options.maxMs ?? 30000;
    this.factor = options.factor ?? 2;
    this.jitter = options.jitter ?? 0.5;
    this.attempts = options.attempts ?? Infinity;
    this.random = options.random ?? Math.random;
    this.count = 0;
  }

  get exhausted() {
    return this.count >= this.attempts;
  }

  /** Milliseconds to wait before the next attempt; `floor` in seconds. */
  next(floor = 0) {
    const whole = Math.min(this.maxMs, this.initialMs * this.factor ** this.count);
    this.count += 1;
    return floor * 1000 + whole * (1 - this.jitter * this.random());
  }

  reset() {
    this.count = 0;
  }
}
