// The hop table: the primary content. One row a sighting; a click or Enter goes there.

import { h, inEnglish } from './dom';
import { differences } from './headers';
import { lang, t } from './i18n';
import { micros, type Sighting } from './model';
import type { Pair } from './align';
import { go, state } from './store';
import { changeWords, lostWords, sentence } from './why';

export class HopTable {
  readonly element: HTMLElement;
  private readonly rows: HTMLTableRowElement[];
  private now = 0;
  private reached = 0;

  constructor() {
    const { pairs, walk } = state;
    this.rows = pairs ? pairs.map(pairRow) : (walk?.shown ?? []).map(hopRow);
    const heads = pairs
      ? [t('thNumber'), t('thPacket'), t('thWhere'), `A ${t('thSource')}`, `B ${t('thSource')}`, 'A TTL', 'B TTL', t('differing')]
      : [t('thNumber'), t('thWhere'), t('thDirection'), t('thSource'), t('thTarget'), t('thTtl'), t('thMac'), t('thChanged'), t('thTime'), t('thWhy')];
    const body = h('tbody', {}, pairs ? this.rows : grouped(walk?.shown ?? [], this.rows, heads.length));
    body.addEventListener('click', (event) => {
      const row = (event.target as Element).closest<HTMLElement>('tr[data-step]');
      if (row) go(Number(row.dataset['step']));
    });
    this.element = h(
      'section',
      { class: 'panel hops', id: 'hops', tabindex: '0', 'aria-label': t('hopTable') },
      h('table', {}, h('caption', {}, t('hopTable')), h('thead', {}, h('tr', {}, heads.map((head) => h('th', { scope: 'col' }, head)))), body),
    );
  }

  /** Marks the row of the step; touches the old row and the new one, and rows that come out of their veil. */
  show(): void {
    const step = state.place.step;
    this.rows[this.now - 1]?.removeAttribute('aria-current');
    const row = this.rows[step - 1];
    row?.setAttribute('aria-current', 'step');
    this.now = step;
    const reached = state.prefs.predict && !state.pairs ? state.reached : this.rows.length;
    if (reached !== this.reached) {
      for (const [i, each] of this.rows.entries()) {
        if (each.hidden === i >= reached) continue;
        each.hidden = i >= reached;
        const head = each.previousElementSibling;
        if (head instanceof HTMLElement && head.classList.contains('group')) head.hidden = each.hidden;
      }
      this.reached = reached;
    }
  }

  /** Where the current row is, for scrolling. */
  current(): HTMLElement | undefined {
    return this.rows[this.now - 1];
  }
}

function stepCell(step: number): HTMLElement {
  return h('th', { scope: 'row' }, h('button', { type: 'button', class: 'step', 'aria-label': t('goTo', { step }) }, String(step)));
}

/** The rows with a line before each packet's first one. */
function grouped(shown: Sighting[], rows: HTMLTableRowElement[], columns: number): HTMLTableRowElement[] {
  const made: HTMLTableRowElement[] = [];
  let last = '';
  for (const [i, row] of shown.entries()) {
    const name = row.kind === 'arp' ? `arp ${row.packet}` : row.key;
    if (name !== last) {
      const kind = row.kind === 'arp' ? 'arp' : row.way;
      made.push(
        h(
          'tr',
          { class: `group ${kind}` },
          h('th', { colspan: columns, scope: 'colgroup' }, h('span', { class: `glyph ${kind}`, 'aria-hidden': 'true' }), inEnglish(row.packet), ` · ${row.kind === 'arp' ? 'ARP' : t(row.way)}`,
            row.kind !== 'arp' && h('span', { class: 'mono quiet' }, ` pkt ${row.key}`)),
        ),
      );
    }
    last = name;
    made.push(rows[i]!);
  }
  return made;
}

function hopRow(row: Sighting, i: number): HTMLTableRowElement {
  const { hop } = row;
  const fields = new Set(row.changed.map((change) => change.field));
  const mark = (field: string, value: string): HTMLElement =>
    h('td', { class: fields.has(field as never) ? 'mono new' : 'mono' }, value, fields.has(field as never) && h('span', { class: 'mark', 'aria-hidden': 'true' }, ' ▲'));
  const macs = hop ? `${hop.source_mac.slice(9)} → ${hop.target_mac.slice(9)}` : '';
  return h(
    'tr',
    { 'data-step': i + 1, 'data-place': row.at, 'data-packet': row.key },
    stepCell(i + 1),
    h('td', { class: 'mono' }, row.at, row.overlay && h('span', { class: 'badge' }, t('encapsulated'))),
    h('td', {}, t(row.direction)),
    hop ? mark('SRC', hop.source) : h('td', {}, ''),
    hop ? mark('DST', hop.target) : h('td', {}, ''),
    hop ? mark('TTL', String(hop.ttl)) : h('td', {}, ''),
    hop ? mark('MAC', row.before && !fields.has('MAC') ? t('same') : macs) : h('td', {}, ''),
    h('td', {}, row.changed.length === 0 ? '—' : row.changed.map((change) => changeWords(lang(), change)).join('; ')),
    h('td', { class: 'mono' }, micros(row.time)),
    h('td', { class: row.lost ? 'why lost' : 'why' }, row.lost ? `✕ ${t('lost')}: ${lostWords(lang(), row.lost)}` : sentence(lang(), { ...row, changed: [], ...(hop && { hop: { ...hop, changed: [] } }) })),
  );
}

function pairRow({ a, b }: Pair, i: number): HTMLTableRowElement {
  const fields = a && b ? differences(a, b) : [];
  const some = (a ?? b)!;
  const cell = (row: Sighting | undefined, value: (row: Sighting) => string | undefined, differs: boolean): HTMLElement =>
    h('td', { class: differs ? 'mono differs' : 'mono' }, row ? (value(row) ?? '') : '—');
  const source = (row: Sighting): string | undefined => row.hop?.source;
  const ttl = (row: Sighting): string => String(row.hop?.ttl ?? '');
  const words = !a ? `B: ${t('onlyHere')}` : !b ? `A: ${t('onlyHere')}` : fields.length === 0 ? t('same') : fields.map((field) => `≠ ${field}`).join(' ');
  return h(
    'tr',
    { 'data-step': i + 1, 'data-place': some.at, class: fields.length > 0 || !a || !b ? 'differing' : '' },
    stepCell(i + 1),
    h('td', {}, inEnglish(some.packet)),
    h('td', { class: 'mono' }, a && b && a.at !== b.at ? `${a.at} | ${b.at}` : some.at, ` ${t(some.direction)}`),
    cell(a, source, fields.includes('SRC')),
    cell(b, source, fields.includes('SRC')),
    cell(a, ttl, fields.includes('TTL')),
    cell(b, ttl, fields.includes('TTL')),
    h('td', {}, words),
  );
}
