/**
 * Drawing again what somebody may be using: the keyboard keeps its place, and what is selected, asked or pressed
 * is left alone. Rows are told apart by `data-key`.
 */
import { put } from './dom.js';

const FOCUSABLE = 'a[href], button, input, select, textarea, summary';

/** Where the keyboard is inside `root`, as something that outlives a redraw. */
function place(root) {
  const row = document.activeElement?.closest?.('[data-key]');
  if (!row || !root.contains(row)) return null;
  return { key: row.dataset.key, at: [...row.querySelectorAll(FOCUSABLE)].indexOf(document.activeElement) };
}

function restore(root, where) {
  if (!where) return;
  const row = [...root.querySelectorAll('[data-key]')].find((r) => r.dataset.key === where.key);
  const target = row?.querySelectorAll(FOCUSABLE)[where.at];
  if (target) target.focus({ preventScroll: true });
}

/** Replaces what `root` holds, around the keyboard's place in it. */
export function redraw(root, ...children) {
  const where = place(root);
  put(root, ...children);
  restore(root, where);
}

/** A click is lost when its element is replaced between the press and the release. */
const pressedIn = (root) => root.querySelector(':active') !== null;

/** Waits until nothing in `root` is pressed. */
export async function released(root) {
  while (pressedIn(root)) await new Promise((resolve) => setTimeout(resolve, 30));
}

/** Whether a redraw would take away what the reader holds. */
export const busyIn = (root) => {
  const selection = getSelection();
  return pressedIn(root) || document.querySelector('dialog[open]') !== null || (!selection.isCollapsed && root.contains(selection.anchorNode));
};
