/**
 * Making elements. What is handed in as text stays text: nothing here or anywhere in the
 * console turns a string into markup, and the page's policy would refuse it.
 */

const SVG = 'http://www.w3.org/2000/svg';

function fill(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
  return element;
}

/**
 * An HTML element. In `props`, functions are listeners (`onclick`), `true` and `false` set and leave
 * out an attribute, `value` and the like are properties; null leaves out.
 */
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === 'function') element.addEventListener(name.slice(2), value);
    else if (name === 'value' || name === 'checked') element[name] = value;
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  return fill(element, children);
}

/** An SVG element with attributes. */
export function svg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes ?? {})) element.setAttribute(name, String(value));
  return fill(element, children);
}

/** Replaces what `element` holds. */
export function put(element, ...children) {
  element.replaceChildren();
  return fill(element, children);
}

let ids = 0;
/** An id of this document that no other element has. */
export function uniqueId() {
  ids += 1;
  return `e${ids}`;
}
