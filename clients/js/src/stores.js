/**
 * Where a session's place is kept: `load(key)`, `save(key, state)`, `remove(key)`,
 * each plain or returning a promise. A state is
 * `{ session_id, epoch, cursor, outbox: [{ message_id, content, metadata? }] }`.
 */

/** Keeps states for the life of the object. Good for tests and for workers. */
export class MemoryStore {
  constructor() {
    this.states = new Map();
  }

  load(key) {
    const text = this.states.get(key);
    return text === undefined ? null : JSON.parse(text);
  }

  save(key, state) {
    this.states.set(key, JSON.stringify(state));
  }

  remove(key) {
    this.states.delete(key);
  }
}

/** Keeps states in the browser's localStorage (or any Storage): a reload goes on where it was. */
export class LocalStorageStore {
  /** @param {Storage} [storage]  @param {string} [prefix] */
  constructor(storage = globalThis.localStorage, prefix = 'ebbgate:') {
    if (!storage) throw new TypeError('there is no localStorage here; use MemoryStore or the FileStore of ./node');
    this.storage = storage;
    this.prefix = prefix;
  }

  load(key) {
    const text = this.storage.getItem(this.prefix + key);
    if (text === null) return null;
    try {
      return JSON.parse(text);
    } catch {
      throw new TypeError(`the stored session "${this.prefix + key}" is not JSON; remove it to start anew`);
    }
  }

  save(key, state) {
    this.storage.setItem(this.prefix + key, JSON.stringify(state));
  }

  remove(key) {
    this.storage.removeItem(this.prefix + key);
  }
}
