/**
 * What is typed and not yet said, kept while this tab's document lives: a page that is left, or a token that ends
 * while one types, does not take it along. Whoever signs out leaves nothing, and nobody is shown what another
 * sub typed.
 */
import { claims } from './api.js';

const kept = new Map();
const whose = (key) => JSON.stringify([claims()?.sub, key]);

/** Gives the text field what was typed in it before under `key`, and keeps what is typed from now on. */
export function keepDraft(field, key) {
  const name = whose(key);
  const keep = () => (field.value === '' ? kept.delete(name) : kept.set(name, field.value));
  field.value = kept.get(name) ?? '';
  field.addEventListener('input', keep);
  return {
    /** It was said. */
    said() {
      field.value = '';
      keep();
    },
  };
}

export const dropDrafts = () => kept.clear();
