/**
 * For Node only: a store in files. Each save writes a new file, flushes it and
 * renames it over the old one, so that a crash leaves the old state or the new one.
 */
import { mkdir, open, readFile, rename, rm } from 'node:fs/promises';
import { createHash } from 'node:crypto';
import { join } from 'node:path';

export class FileStore {
  /** @param {string} directory made, mode 0700, when it is not there */
  constructor(directory) {
    this.directory = directory;
    this.serial = 0;
  }

  path(key) {
    const plain = /^[A-Za-z0-9_-]{1,100}$/.test(key) ? key : createHash('sha256').update(key).digest('hex');
    return join(this.directory, plain + '.json');
  }

  async load(key) {
    let text;
    try {
      text = await readFile(this.path(key), 'utf8');
    } catch (error) {
      if (error.code === 'ENOENT') return null;
      throw error;
    }
    try {
      return JSON.parse(text);
    } catch {
      throw new TypeError(`${this.path(key)} is not JSON; remove it to start anew`);
    }
  }

  async save(key, state) {
    await mkdir(this.directory, { recursive: true, mode: 0o700 });
    const path = this.path(key);
    this.serial += 1;
    const fresh = `${path}.${process.pid}.${this.serial}`;
    try {
      const file = await open(fresh, 'w', 0o600);
      try {
        await file.writeFile(JSON.stringify(state));
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(fresh, path);
    } catch (error) {
      await rm(fresh, { force: true }); // on a full disk it would take what room there is
      throw error;
    }
  }

  async remove(key) {
    await rm(this.path(key), { force: true });
  }
}
