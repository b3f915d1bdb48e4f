import type { Store, StoredState } from './index.js';

/** Keeps sessions in files of a directory; a save is flushed and renamed into place. */
export class FileStore implements Store {
  constructor(directory: string);
  load(key: string): Promise<StoredState | null>;
  save(key: string, state: StoredState): Promise<void>;
  remove(key: string): Promise<void>;
}
