// The picture of a cluster, made by podlab itself; here it gets the packet, marks, and keys.

import { add, h, inEnglish, readSvg, s, sign } from './dom';
import { lang, t } from './i18n';
import type { Sighting } from './model';
import { label, shape, travel, type Point } from './token';
import type { WalkDocument } from './types';
import { lostWords } from './why';

const PADDING = 6;
const SMALLEST = 0.9;
const LARGEST = 1.8;

let sheet: CSSStyleSheet | undefined;

/** The picture's own colours, weaker than the page's, and for pictures only. */
function adopt(css: string): void {
  if (sheet || !css) return;
  sheet = new CSSStyleSheet();
  sheet.replaceSync(`@layer picture { @scope (.frame) { ${css} } }`);
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
}

export class Picture {
  readonly element: HTMLElement;
  readonly svg: SVGSVGElement | null;
  /** How many elements the last step has touched. */
  touched = 0;
  private readonly frame: HTMLElement;
  private readonly interfaces = new Map<string, Element>();
  private readonly centres = new Map<string, Point>();
  private token: SVGGElement | null = null;
  private label: SVGGElement | null = null;
  private marked: Element[] = [];
  private shown: Point | null = null;
  private sizes: { width: number; height: number } | null = null;
  /** Pixels of the page for one of the picture; 0 before it has been laid out. */
  private scale = 0;

  constructor(doc: WalkDocument, name: string, id: string) {
    const read = readSvg(doc.picture);
    this.svg = read?.svg ?? null;
    this.frame = h('div', { class: 'frame' });
    if (read) {
      adopt(read.css);
      read.svg.classList.add('picture');
      read.svg.setAttribute('aria-label', name);
      for (const of of read.svg.querySelectorAll('[data-at]')) this.interfaces.set(of.getAttribute('data-at')!, of);
      this.frame.append(read.svg);
      this.rove();
    }
    this.element = h(
      'figure',
      { class: 'picture-panel', id },
      h(
        'figcaption',
        {},
        h('span', { class: 'mode' }, inEnglish(doc.mode)),
        ' ',
        h('span', { class: 'quiet' }, t('size', { nodes: doc.lab.nodes.length, pods: doc.lab.pods.length })),
        h(
          'span',
          { class: 'zoom' },
          sign('−', t('smaller'), () => this.resize(this.scale / 1.25), { id: `${id}-smaller` }),
          sign('⤢', t('fit'), () => this.fit(), { id: `${id}-fit` }),
          sign('+', t('larger'), () => this.resize(this.scale * 1.25), { id: `${id}-larger` }),
        ),
      ),
      this.frame,
    );
  }

  private resize(scale: number): void {
    if (!this.svg) return;
    this.scale = Math.min(4, Math.max(0.1, scale));
    const { width, height } = this.svg.viewBox.baseVal;
    this.svg.style.width = `${width * this.scale}px`;
    this.svg.style.height = `${height * this.scale}px`;
    this.sizes = null;
    this.follow();
  }

  /** All of the picture, as large as it goes. */
  fit(): void {
    if (!this.svg) return;
    const { width, height } = this.svg.viewBox.baseVal;
    this.resize(Math.min((this.frame.clientWidth - 2 * PADDING) / width, (this.frame.clientHeight - 2 * PADDING) / height));
  }

  /** The part of the picture where a walk is, as large as it goes and no smaller than can be read. */
  focus(places: Iterable<string>): void {
    if (!this.svg) return;
    this.resize(1);
    const points = [...new Set(places)].map((at) => this.centre(at)).filter((point) => point !== null);
    if (points.length === 0) return;
    const [xs, ys] = [points.map(({ x }) => x), points.map(({ y }) => y)];
    const { width, height } = this.svg.viewBox.baseVal;
    const [left, right] = [Math.max(0, Math.min(...xs) - 70), Math.min(width, Math.max(...xs) + 70)];
    const [top, bottom] = [Math.max(0, Math.min(...ys) - 70), Math.min(height, Math.max(...ys) + 50)];
    const { clientWidth, clientHeight } = this.frame;
    const text = parseFloat(getComputedStyle(document.documentElement).fontSize) / 14;
    this.resize(Math.min(LARGEST, Math.max(SMALLEST * Math.min(text, 1.4), Math.min((clientWidth - 2 * PADDING) / (right - left), (clientHeight - 2 * PADDING) / (bottom - top)))));
    this.frame.scrollLeft = ((left + right) / 2) * this.scale + PADDING - clientWidth / 2;
    this.frame.scrollTop = ((top + bottom) / 2) * this.scale + PADDING - clientHeight / 2;
  }

  /** Brings the packet into sight, if it is not there. */
  follow(): void {
    if (this.shown) this.keepInSight(this.shown);
  }

  /** Scrolls only when the packet is out of sight. */
  private keepInSight({ x, y }: Point): void {
    this.sizes ??= { width: this.frame.clientWidth, height: this.frame.clientHeight };
    const { width, height } = this.sizes;
    const [px, py] = [x * this.scale + PADDING, y * this.scale + PADDING];
    const { scrollLeft, scrollTop } = this.frame;
    if (px < scrollLeft + 60 || px > scrollLeft + width - 60) this.frame.scrollLeft = px - width / 2;
    if (py < scrollTop + 40 || py > scrollTop + height - 30) this.frame.scrollTop = py - height / 2;
  }

  /** One tab stop; the arrows go from place to place, in the order of the picture. */
  private rove(): void {
    const places = [...(this.svg?.querySelectorAll<SVGGElement>('[role="listitem"]') ?? [])];
    places.forEach((place, i) => place.setAttribute('tabindex', i === 0 ? '0' : '-1'));
    this.svg?.addEventListener('keydown', (event) => {
      const now = places.indexOf((event.target as Element).closest('[role="listitem"]') as SVGGElement);
      const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (now < 0 || by === undefined) return;
      event.preventDefault();
      event.stopPropagation();
      const next = places[(now + by + places.length) % places.length]!;
      places[now]!.setAttribute('tabindex', '-1');
      next.setAttribute('tabindex', '0');
      next.focus();
    });
  }

  /** The middle of an interface's box, in the picture's own units. */
  centre(at: string): Point | null {
    const known = this.centres.get(at);
    if (known) return known;
    const rect = this.interfaces.get(at)?.querySelector('rect');
    const outer = this.svg?.getScreenCTM();
    const inner = rect?.getScreenCTM();
    if (!rect || !outer || !inner) return null;
    const box = rect.getBBox();
    const { x, y } = new DOMPoint(box.x + box.width / 2, box.y + box.height / 2).matrixTransform(inner).matrixTransform(outer.inverse());
    this.centres.set(at, { x, y });
    return { x, y };
  }

  /** Shows a packet where it was seen; `from` is where it was shown before, if it shall move. */
  show(row: Sighting | undefined, from?: Sighting): void {
    this.touched = 0;
    for (const element of this.marked) this.mark(element, false);
    this.marked = [];
    this.token?.remove();
    this.label?.remove();
    this.token = null;
    const to = row && this.centre(row.at);
    if (!this.svg || !row || !to) return;
    this.shown = to;
    const here = this.interfaces.get(row.at)!;
    this.mark(here, true);
    this.marked.push(here);
    const box = this.svg.viewBox.baseVal;
    const rect = here.querySelector('rect')!;
    const high = rect.height.baseVal.value;
    const r = Math.max(6, Math.min(high * 0.42, 12));
    const lost = row.lost ? `✕ ${lostWords(lang(), row.lost)}` : '';
    this.label = label(row, lost, to, Math.max(r, high / 2), box as unknown as DOMRect, Math.max(9, r));
    this.token = s('g', { class: 'token', 'aria-hidden': 'true', transform: `translate(${to.x} ${to.y})` }, shape(row, r));
    this.label.setAttribute('aria-hidden', 'true');
    add(this.svg, [this.label, this.token]);
    this.touched += 2;
    const start = from && from.key === row.key && from.at !== row.at ? this.centre(from.at) : null;
    if (start) {
      const [wire, forward] = this.wire(from!.at, row.at);
      if (wire) {
        this.mark(wire, true);
        this.marked.push(wire);
      }
      travel(this.token, start, to, wire, forward);
    }
  }

  private mark(element: Element, on: boolean): void {
    element.classList.toggle('here', on);
    this.touched++;
  }

  private wire(a: string, b: string): [SVGPathElement | null, boolean] {
    for (const wire of this.svg?.querySelectorAll<SVGPathElement>('path.wire') ?? []) {
      const [from, to] = [wire.getAttribute('data-from'), wire.getAttribute('data-to')];
      if (from === a && to === b) return [wire, true];
      if (from === b && to === a) return [wire, false];
    }
    return [null, true];
  }
}
