// The packet at this hop: its headers one sighting earlier and here, what is new outlined, and why.

import { h, inEnglish, put } from './dom';
import { differences, layers, type Layer } from './headers';
import { lang, t } from './i18n';
import type { Sighting } from './model';
import { at, state } from './store';
import { lostWords, sentence } from './why';

/** Which layer the arrows have chosen, from the outermost. */
let chosen = -1;

export class PacketPanel {
  readonly element = h('section', { class: 'panel packet', 'aria-label': t('packet'), id: 'packet', tabindex: '0' });

  show(): void {
    const row = at(state.place.step);
    const other = state.pairs ? at(state.place.step, 'b') : undefined;
    if (state.pairs) this.compare(row, other);
    else if (row) this.one(row);
    else put(this.element, h('h2', {}, t('packet')));
    this.choose(0);
  }

  private one(row: Sighting): void {
    put(
      this.element,
      h('h2', {}, t('packet')),
      h(
        'p',
        { class: 'what' },
        h('b', {}, inEnglish(row.packet)),
        ` · ${t(row.way)} · `,
        h('span', { class: 'mono' }, row.at),
        ` ${t(row.direction)}`,
        row.overlay && h('span', { class: 'badge' }, t('encapsulated')),
      ),
      h('p', { class: 'why' }, sentence(lang(), row)),
      row.lost && drop(row),
      boxes(layers(row, row.before), row.before ? layers(row.before) : [], t('before'), t('after'), t('changed')),
      !row.before && h('p', { class: 'quiet' }, t('first')),
      evidence(row),
    );
  }

  private compare(a: Sighting | undefined, b: Sighting | undefined): void {
    const fields = a && b ? differences(a, b) : [];
    put(
      this.element,
      h('h2', {}, t('differing')),
      h('p', { class: 'what' }, h('b', {}, 'A '), state.walk?.doc.mode ?? '', ' · ', h('b', {}, 'B '), state.other?.doc.mode ?? ''),
      h('p', { class: 'why' }, fields.length === 0 ? t('bothSame') : fields.map((field) => h('span', { class: 'badge differs' }, `≠ ${field}`))),
      a && h('p', {}, h('b', {}, 'A '), sentence(lang(), a)),
      b && h('p', {}, h('b', {}, 'B '), sentence(lang(), b)),
      boxes(b ? layers(b, a) : [], a ? layers(a) : [], 'A', 'B', t('differs')),
    );
  }

  /** Chooses a layer further in or out. */
  choose(by: number): void {
    const all = [...this.element.querySelectorAll('.layer')];
    if (by !== 0) chosen = Math.min(Math.max(chosen + by, 0), all.length - 1);
    all.forEach((layer, i) => {
      layer.classList.toggle('chosen', i === chosen);
      if (i === chosen && by !== 0) layer.scrollIntoView({ block: 'nearest' });
    });
  }
}

function drop(row: Sighting): HTMLElement {
  const { lost } = row;
  return h(
    'p',
    { class: 'drop' },
    h('b', {}, `✕ ${t('lost')}: ${lostWords(lang(), lost!)}`),
    h('br'),
    inEnglish(lost!.reason),
    lost!.kernel !== undefined && h('span', { class: 'mono' }, ` · ${lost!.kernel}`),
  );
}

/** The layers of two states of a packet: a table of three columns each, nested as the packet is. */
function boxes(now: Layer[], then: Layer[], left: string, right: string, word: string): HTMLElement {
  const before = new Map(then.flatMap((layer) => layer.fields.map((field) => [field.id, field.value])));
  const ids = new Set(now.map((layer) => layer.id));
  const gone = then.filter((layer) => !ids.has(layer.id)).map((layer) => ({ ...layer, fields: layer.fields.map((f) => ({ ...f, changed: true })) }));
  const all = [...gone.map((layer) => ({ layer, left: true })), ...now.map((layer) => ({ layer, left: false }))];
  return h(
    'div',
    { class: 'layers' },
    all.map(({ layer, left: isGone }) =>
      h(
        'table',
        { class: `layer ${layer.id}` },
        h('caption', {}, layer.name),
        h('thead', {}, h('tr', {}, h('td', {}), h('th', { scope: 'col' }, left), h('th', { scope: 'col' }, right))),
        h(
          'tbody',
          {},
          layer.fields.map((field) =>
            h(
              'tr',
              { class: field.changed ? 'changed' : '', 'data-field': field.id },
              h('th', { scope: 'row' }, inEnglish(field.label)),
              h('td', {}, isGone ? field.value : (before.get(field.id) ?? '—')),
              h('td', {}, isGone ? '—' : field.value, field.changed && h('span', { class: 'mark' }, ` ▲ ${word}`)),
            ),
          ),
        ),
      ),
    ),
  );
}

function evidence(row: Sighting): HTMLElement[] {
  const { causes = [], hooks = [] } = row.hop ?? {};
  const made: HTMLElement[] = [];
  if (causes.length > 0) {
    made.push(h('h3', {}, t('evidence')), h('ul', { class: 'evidence', lang: 'en' }, causes.map((cause) => h('li', {}, cause))));
  }
  if (hooks.length > 0) {
    const words = hooks.map((step) => `${step.hook} ${step.table} ${step.chain}${step.rule ? `: ${step.rule}` : ''} → ${step.verdict}`);
    made.push(h('h3', {}, t('hooks')), h('ul', { class: 'evidence', lang: 'en' }, words.map((text) => h('li', {}, text))));
  }
  return made;
}
