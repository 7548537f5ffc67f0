// The one step control, the speed, and what is shown.

import { button, h, sign } from './dom';
import { t } from './i18n';
import { packets } from './model';
import { isPlaying, pause, togglePlay } from './play';
import { predictOrGo } from './predict';
import { at, count, go, refilter, setPrefs, state, type Prefs } from './store';

const SPEEDS: [string, number][] = [['×¼', 0.25], ['×½', 0.5], ['×1', 1], ['×2', 2], ['×4', 4]];

export function stepForth(): void {
  pause();
  predictOrGo();
}

export function stepTo(step: number): void {
  pause();
  go(state.prefs.predict && !state.pairs ? Math.min(step, state.reached) : step);
}

export class Controls {
  readonly element: HTMLElement;
  private readonly count = h('output', { id: 'count', class: 'count' });
  private readonly play = sign('▷', t('play'), togglePlay, { id: 'play' });
  private readonly range = h('input', { type: 'range', id: 'scrub', min: 1, 'aria-label': t('walkControls') });
  private readonly only = h('input', { type: 'checkbox', id: 'only' });

  constructor() {
    this.range.max = String(Math.max(1, count()));
    this.range.addEventListener('input', () => stepTo(Number(this.range.value)));
    this.only.addEventListener('change', () => {
      const row = at(state.place.step);
      state.place.pkt = this.only.checked && row && row.kind !== 'arp' ? row.key : '';
      refilter();
    });
    const speed = h('select', { id: 'speed', 'aria-label': t('speed') }, SPEEDS.map(([label, value]) => h('option', { value, selected: value === state.prefs.speed }, label)));
    speed.addEventListener('change', () => setPrefs({ speed: Number(speed.value) }));
    this.element = h(
      'div',
      { class: 'controls', role: 'group', 'aria-label': t('walkControls') },
      h(
        'div',
        { class: 'steps' },
        sign('|◀', t('toFirst'), () => stepTo(1), { id: 'first' }),
        sign('◀', t('back'), () => stepTo(state.place.step - 1), { id: 'back' }),
        h('button', { type: 'button', class: 'primary', id: 'next', onclick: stepForth, title: t('next') }, `${t('nextStep')} ▶`),
        sign('▶|', t('toLast'), () => stepTo(count()), { id: 'last' }),
        this.play,
        speed,
        this.range,
        this.count,
      ),
      this.filters(),
    );
  }

  private filters(): HTMLElement {
    const rows = state.walk?.rows ?? [];
    const kinds = (['arp', 'tcp', 'udp', 'icmp'] as const).filter((kind) => rows.some((row) => row.kind === kind));
    const box = (key: keyof Prefs['shown'], label: string): HTMLElement => {
      const input = h('input', { type: 'checkbox', id: `show-${key}`, checked: state.prefs.shown[key] });
      input.addEventListener('change', () => {
        state.prefs.shown[key] = input.checked;
        refilter();
      });
      return h('label', { class: 'check' }, input, label);
    };
    this.only.checked = state.place.pkt !== '';
    const choice = h(
      'select',
      { id: 'pkt', 'aria-label': t('thPacket'), hidden: state.place.pkt === '' },
      packets(rows).map(({ key, packet }) => h('option', { value: key, selected: key === state.place.pkt, lang: 'en' }, `${packet} ${key}`)),
    );
    choice.addEventListener('change', () => {
      state.place.pkt = choice.value;
      refilter();
    });
    return h(
      'div',
      { class: 'filters', role: 'group', 'aria-label': t('filters') },
      kinds.map((kind) => box(kind, kind.toUpperCase())),
      rows.some((row) => row.overlay) && box('overlay', t('overlay')),
      box('replies', t('replies')),
      !state.pairs && h('label', { class: 'check' }, this.only, t('onlyThis')),
      !state.pairs && choice,
    );
  }

  show(): void {
    const { step } = state.place;
    this.count.textContent = t('stepOf', { step: count() === 0 ? 0 : step, count: count() });
    this.range.value = String(step);
    this.range.setAttribute('aria-valuetext', this.count.textContent);
    this.playing();
  }

  playing(): void {
    const on = isPlaying();
    this.play.firstElementChild!.textContent = on ? '❚❚' : '▷';
    const label = on ? t('pause') : t('play');
    this.play.title = label;
    this.play.setAttribute('aria-label', label);
  }
}

/** A check box that changes a preference. */
export function preference(key: 'predict' | 'projector', label: string): HTMLButtonElement {
  return button(label, () => {
    if (key === 'predict') state.reached = state.place.step;
    setPrefs({ [key]: !state.prefs[key] });
  }, { id: `pref-${key}`, 'aria-pressed': String(state.prefs[key]) });
}
