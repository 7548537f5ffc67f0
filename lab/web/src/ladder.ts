// The ladder: interfaces as columns, time downward, a line from each sighting to the next one of its packet.

import { h, s } from './dom';
import { t } from './i18n';
import { micros, type Sighting } from './model';
import { go, state } from './store';

/** Pixels, at the usual size of text. */
const SIZES = { COLUMN: 66, ROW: 22, LEFT: 66, TOP: 40 };

export class Ladder {
  readonly element: HTMLElement;
  private readonly rungs: SVGGElement[] = [];
  private readonly columns: number[];
  private now = 0;
  private reached = 0;

  private readonly row: number;

  constructor(shown: Sighting[]) {
    const k = parseFloat(getComputedStyle(document.documentElement).fontSize) / 14;
    const [COLUMN, ROW, LEFT, TOP] = [SIZES.COLUMN * k, SIZES.ROW * k, SIZES.LEFT * k, SIZES.TOP * k];
    this.row = ROW;
    const columns = new Map<string, number>();
    for (const row of shown) if (!columns.has(row.at)) columns.set(row.at, LEFT + COLUMN * (columns.size + 0.5));
    this.columns = shown.map((row) => columns.get(row.at)!);
    const width = LEFT + COLUMN * columns.size;
    const height = TOP + ROW * shown.length + 8;
    const place = new Map(shown.map((row, i) => [row, TOP + ROW * (i + 0.6)]));
    const lanes = [...columns].map(([at, x]) => s('path', { class: 'lane', d: `M${x} ${TOP - 4}V${height}` }, s('title', {}, at)));
    const names = [...columns].map(([at, x]) => {
      const slash = at.indexOf('/');
      const iface = at.slice(slash + 1);
      return s('text', { class: 'lane-name', x, y: 14 * k }, s('tspan', { x }, at.slice(0, slash)), s('tspan', { x, dy: 13 * k }, iface.length > 10 ? `${iface.slice(0, 9)}…` : iface));
    });
    for (const [i, row] of shown.entries()) this.rungs.push(rung(row, i, columns, place, width, ROW, LEFT));
    const rungs = s('g', {}, ...this.rungs);
    rungs.addEventListener('click', (event) => {
      const found = this.rungs.indexOf((event.target as Element).closest('.rung') as SVGGElement);
      if (found >= 0) go(found + 1);
    });
    // The names stay while the time goes by below them.
    this.element = h(
      'section',
      { class: 'panel ladder', id: 'ladder', tabindex: '0', 'aria-label': t('ladder') },
      h(
        'div',
        { class: 'rungs' },
        s('svg', { class: 'names', width, height: TOP - 6, viewBox: `0 0 ${width} ${TOP - 6}`, 'aria-hidden': 'true' }, ...names),
        s('svg', { class: 'lanes', width, height: height - TOP, viewBox: `0 ${TOP} ${width} ${height - TOP}`, role: 'img', 'aria-label': t('ladder') }, ...lanes, rungs),
      ),
    );
  }

  show(): void {
    const step = state.place.step;
    this.rungs[this.now - 1]?.classList.remove('here');
    this.rungs[step - 1]?.classList.add('here');
    this.now = step;
    const reached = state.prefs.predict ? state.reached : this.rungs.length;
    if (reached !== this.reached) {
      for (const [i, each] of this.rungs.entries()) each.classList.toggle('veiled', i >= reached);
      this.reached = reached;
    }
  }

  /** Where the current step is, from the corner of the ladder. */
  offset(): { x: number; y: number } {
    return { x: this.columns[this.now - 1] ?? 0, y: this.row * (this.now - 1) };
  }
}

function rung(row: Sighting, i: number, columns: Map<string, number>, place: Map<Sighting, number>, width: number, ROW: number, LEFT: number): SVGGElement {
  const x = columns.get(row.at)!;
  const y = place.get(row)!;
  const earlier = row.before && place.get(row.before);
  const kind = row.kind === 'arp' ? 'arp' : row.way;
  const made = s('g', { class: `rung ${kind}${row.changed.length > 0 ? ' new' : ''}`, 'data-step': i + 1 });
  made.append(
    s('rect', { class: 'band', x: 0, y: y - ROW * 0.6, width, height: ROW }),
    s('text', { class: 'time', x: LEFT - 6, y: y + 3.5 }, micros(row.time)),
  );
  if (earlier !== undefined && row.before) made.append(s('path', { class: 'line', d: `M${columns.get(row.before.at)!} ${earlier}L${x} ${y}` }));
  else made.append(s('text', { class: 'name', x: x + 9, y: y - 4 }, row.kind === 'arp' ? 'ARP' : row.packet));
  made.append(
    row.lost
      ? s('path', { class: 'cross', d: `M${x - 5} ${y - 5}l10 10m0 -10l-10 10` })
      : s('path', { class: 'dot', d: kind === 'arp' ? `M${x} ${y - 5}l5 5l-5 5l-5 -5z` : kind === 'request' ? `M${x - 4} ${y - 5}l9 5l-9 5z` : `M${x + 4} ${y - 5}l-9 5l9 5z` }),
  );
  return made;
}
