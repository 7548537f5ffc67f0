// Makes elements. Nothing is ever parsed from a string here but a picture, and no style is set in markup.

type Value = string | number | boolean | null | undefined | EventListener;
type Attributes = Record<string, Value>;
export type Child = Node | string | null | undefined | false | Child[];

const SVG = 'http://www.w3.org/2000/svg';

function fill(element: Element, attributes: Attributes, children: Child[]): void {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === 'function') element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  add(element, children);
}

export function add(element: Element, children: Child[]): void {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    if (Array.isArray(child)) add(element, child);
    else element.append(child);
  }
}

/** An HTML element. A function as a value listens: `onclick`. */
export function h<K extends keyof HTMLElementTagNameMap>(tag: K, attributes: Attributes = {}, ...children: Child[]): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  fill(element, attributes, children);
  return element;
}

/** An SVG element. */
export function s<K extends keyof SVGElementTagNameMap>(tag: K, attributes: Attributes = {}, ...children: Child[]): SVGElementTagNameMap[K] {
  const element = document.createElementNS(SVG, tag);
  fill(element, attributes, children);
  return element;
}

/** A button with words. */
export function button(label: string, onclick: () => void, attributes: Attributes = {}): HTMLButtonElement {
  return h('button', { type: 'button', onclick, ...attributes }, label);
}

/** A button with a sign, whose words are its name. */
export function sign(mark: string, label: string, onclick: () => void, attributes: Attributes = {}): HTMLButtonElement {
  return h('button', { type: 'button', class: 'sign', onclick, title: label, 'aria-label': label, ...attributes }, h('span', { 'aria-hidden': 'true' }, mark));
}

/** Replaces all that is in an element. */
export function put(element: Element, ...children: Child[]): void {
  element.replaceChildren();
  add(element, children);
}

/** Text in English within a page that may be in another language. */
export function inEnglish(text: string): HTMLElement {
  return h('span', { lang: 'en' }, text);
}

/** Reads an SVG document. Its style elements go to a sheet of the page, as a strict policy has none in markup. */
export function readSvg(text: string): { svg: SVGSVGElement; css: string } | null {
  let css = '';
  const bare = text.replace(/<style[^>]*>([\s\S]*?)<\/style>/g, (_, rules: string) => {
    css += rules.replace(/^<!\[CDATA\[|\]\]>$/g, '');
    return '';
  });
  const read = new DOMParser().parseFromString(bare, 'image/svg+xml').documentElement;
  if (read.localName !== 'svg' || read.namespaceURI !== SVG) return null;
  for (const element of read.querySelectorAll('script, foreignObject')) element.remove();
  for (const element of [read, ...read.querySelectorAll('*')]) {
    for (const { name } of [...element.attributes]) {
      if (/^on|^style$/i.test(name) || /^(xlink:)?href$/i.test(name)) element.removeAttribute(name);
    }
  }
  return { svg: document.importNode(read, true) as unknown as SVGSVGElement, css };
}
