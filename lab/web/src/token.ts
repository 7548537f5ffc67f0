// The packet in the picture: its shape, its label, and its way from one interface to the next.

import { s } from './dom';
import { split, type Sighting } from './model';

export interface Point {
  x: number;
  y: number;
}

const MS = 420;
const SAMPLES = 12;

/** The outline of a packet's kind, of so much to each side of its middle. */
function outline(row: Sighting, r: number): string {
  if (row.kind === 'arp') return `M0 ${-r}L${r} 0L0 ${r}L${-r} 0Z`;
  return row.way === 'request' ? `M${-r} ${-r}L${r} 0L${-r} ${r}Z` : `M${r} ${-r}L${-r} 0L${r} ${r}Z`;
}

/** A packet's shape around the origin. */
export function shape(row: Sighting, r: number): SVGGElement {
  const kind = row.kind === 'arp' ? 'arp' : row.way;
  const inner = row.overlay ? r * 0.72 : r;
  return s(
    'g',
    { class: `token-shape ${kind}` },
    row.overlay && s('rect', { class: 'token-box', x: -r * 1.25, y: -r * 1.25, width: r * 2.5, height: r * 2.5, rx: r * 0.2 }),
    s('path', { class: 'token-body', d: outline(row, inner) }),
    row.lost && s('path', { class: 'token-cross', d: `M${-r} ${-r}L${r} ${r}M${r} ${-r}L${-r} ${r}` }),
  );
}

/** What the label says: one line, or two where addresses were rewritten, the old one struck through. */
export function labelLines(row: Sighting): { text: string; old: boolean }[] {
  const words = (hop: NonNullable<Sighting['hop']>): string => `${split(hop.source).address} → ${split(hop.target).address}`;
  if (!row.hop) return [{ text: row.packet, old: false }];
  const lines = [{ text: words(row.hop), old: false }];
  const rewritten = row.changed.some(({ field }) => field === 'SRC' || field === 'DST');
  if (rewritten && row.before?.hop) lines.unshift({ text: words(row.before.hop), old: true });
  return lines;
}

/** The label, above its point or, where there is no room, below it. */
export function label(row: Sighting, extra: string, at: Point, r: number, box: DOMRect, size: number): SVGGElement {
  const lines = labelLines(row).map((line) => ({ ...line, lost: false }));
  if (extra) lines.push({ text: extra, old: false, lost: true });
  const sized = (element: SVGTextElement): SVGTextElement => {
    // Not as an attribute: what the picture says of its texts would win.
    element.style.fontSize = `${size}px`;
    return element;
  };
  const width = Math.max(...lines.map((line) => wide(line.text))) * size * 0.602 + size;
  const height = lines.length * size * 1.35 + size * 0.5;
  const x = Math.min(Math.max(at.x - width / 2, box.x + 2), Math.max(box.x + 2, box.x + box.width - width - 2));
  const above = at.y - r * 1.6 - height;
  const y = above > box.y + 2 ? above : at.y + r * 1.6;
  return s(
    'g',
    { class: 'token-label', transform: `translate(${x} ${y})` },
    s('rect', { width, height, rx: size * 0.25 }),
    lines.map((line, i) =>
      sized(s('text', { class: line.old ? 'old' : line.lost ? 'lost' : '', x: size * 0.5, y: size * 1.2 + i * size * 1.35 }, line.text)),
    ),
  );
}

/** How many Latin letters a text is as wide as. */
function wide(text: string): number {
  let sum = 0;
  for (const sign of text) sum += sign > '\u1100' ? 1.7 : 1;
  return sum;
}

/** Lets a token go from a point to where it is, along a wire if there is one. Nothing moves for who wants no motion. */
export function travel(token: SVGGElement, from: Point, to: Point, wire: SVGPathElement | null, forward: boolean): void {
  if (matchMedia('(prefers-reduced-motion: reduce)').matches) return;
  const frames = points(from, to, wire, forward).map(({ x, y }) => ({ transform: `translate(${x}px, ${y}px)` }));
  token.animate(frames, { duration: MS, easing: 'ease-in-out' });
}

function points(from: Point, to: Point, wire: SVGPathElement | null, forward: boolean): Point[] {
  if (!wire) return [from, to];
  const length = wire.getTotalLength();
  const along = Array.from({ length: SAMPLES + 1 }, (_, i) => {
    const point = wire.getPointAtLength((length * (forward ? i : SAMPLES - i)) / SAMPLES);
    return { x: point.x, y: point.y };
  });
  return [from, ...along, to];
}
