// The picture of a cluster, made by podlab itself; here it gets the packet, marks, and keys.

import { add, h, inEnglish, readSvg, s, sign } from './dom';
import { lang, t } from './i18n';
import type { Sighting } from './model';
import { label, shape, travel, type Point } from './token';
import type { WalkDocument } from './types';
import { lostWords } from './why';

let sheet: CSSStyleSheet | undefined;

/** The picture's own colours, weaker than the page's, and for pictures only. */
function adopt(css: string): void {
  if (sheet || !css) return;
  sheet = new CSSStyleSheet();
  sheet.replaceSync(`@layer picture { @scope (svg.picture) { ${css} } }`);
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
  private zoom = 1;

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
        h('span', { class: 'quiet' }, `${doc.lab.nodes.length} nodes · ${doc.lab.pods.length} pods`),
        h(
          'span',
          { class: 'zoom' },
          sign('−', t('smaller'), () => this.resize(this.zoom / 1.25), { id: `${id}-smaller` }),
          sign('⤢', t('fit'), () => this.resize(1), { id: `${id}-fit` }),
          sign('+', t('larger'), () => this.resize(this.zoom * 1.25), { id: `${id}-larger` }),
        ),
      ),
      this.frame,
    );
  }

  private resize(zoom: number): void {
    this.zoom = Math.min(4, Math.max(1, zoom));
    if (this.svg) this.svg.style.width = `${this.zoom * 100}%`;
    this.frame.classList.toggle('zoomed', this.zoom > 1);
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
