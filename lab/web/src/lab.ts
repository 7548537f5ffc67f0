// A live lab: break and heal, verify with its matrix, and events. Recorded walks have none of it.

import { button, h, inEnglish, put, readSvg } from './dom';
import { get, getText, listen, post } from './api';
import { t } from './i18n';
import { build, state } from './store';
import type { Lab } from './types';

interface Fault {
  number: number;
  fault: string;
  target: string;
}

interface Entry {
  name: string;
  does: string;
  seen: string;
  target: string;
}

interface Report {
  passed: number;
  failed: number;
  checks: { name: string; title: string; verdicts: { ruling: string; evidence: string; subject: string }[] }[];
}

const MOST_EVENTS = 200;

const known = {
  catalogue: [] as Entry[],
  broken: [] as Fault[],
  report: null as Report | null,
  matrix: '',
  events: [] as string[],
  fault: '',
  on: '',
  wrong: '',
  busy: false,
};

/** Reads what there is, once, and listens from then on. */
export async function startLab(): Promise<void> {
  listen((event) => {
    known.events.unshift(eventWords(event));
    known.events.length = Math.min(known.events.length, MOST_EVENTS);
    drawEvents();
  });
  try {
    const [lab, faults] = await Promise.all([get<Lab>('/api/lab'), get<{ faults?: Entry[]; active?: Fault[] }>('/api/faults')]);
    state.lab = lab;
    known.catalogue = (faults.faults ?? []).filter((entry) => !entry.does.startsWith('not on this kernel'));
    known.broken = faults.active ?? [];
  } catch (error) {
    known.wrong = (error as Error).message;
  }
  build();
}

/** An event in one line: when, where and what, whatever else it says. */
function eventWords(event: Record<string, unknown>): string {
  const { ms, schema: _, ...rest } = event;
  const when = typeof ms === 'number' ? `${(ms / 1000).toFixed(3)} s ` : '';
  return when + Object.values(rest).filter((value) => typeof value === 'string' || typeof value === 'number').join(' ');
}

async function act(work: () => Promise<void>): Promise<void> {
  known.busy = true;
  known.wrong = '';
  build();
  try {
    await work();
    state.lab = await get<Lab>('/api/lab');
  } catch (error) {
    known.wrong = t('failed', { error: (error as Error).message });
  }
  known.busy = false;
  build();
}

export function labPanel(): HTMLElement {
  const panel = h('section', { class: 'panel lab', id: 'lab', 'aria-label': t('labTab'), tabindex: '0' });
  if (state.boot.live !== true) {
    put(panel, h('p', {}, t('onlyLive')));
    return panel;
  }
  put(
    panel,
    h('div', { role: 'status' }, known.busy && h('p', { class: 'quiet' }, t('working')), known.wrong && h('p', { class: 'bad' }, known.wrong)),
    breaking(),
    h('h2', {}, t('verify')),
    button(t('verifyIt'), () => void act(verify), { id: 'verify', class: 'primary', disabled: known.busy }),
    known.report && report(known.report),
    h('h2', {}, t('events')),
    h('ol', { id: 'events', class: 'events', lang: 'en', tabindex: '0', 'aria-label': t('events') }),
  );
  drawEvents(panel);
  return panel;
}

function drawEvents(within: ParentNode = document): void {
  const list = within.querySelector('#events');
  if (list) put(list, known.events.length === 0 ? h('li', { lang: state.prefs.lang, class: 'quiet' }, t('noEvents')) : known.events.map((line) => h('li', {}, line)));
}

function breaking(): HTMLElement[] {
  const chosen = known.catalogue.find((entry) => entry.name === known.fault) ?? known.catalogue[0];
  const fault = h('select', { id: 'fault' }, known.catalogue.map(({ name }) => h('option', { selected: name === chosen?.name }, name)));
  fault.addEventListener('change', () => {
    known.fault = fault.value;
    build();
  });
  const on = h('input', { id: 'on', value: known.on, list: 'targets', autocomplete: 'off', spellcheck: 'false' });
  on.addEventListener('input', () => (known.on = on.value));
  const names = [...(state.lab?.nodes ?? []), ...(state.lab?.pods ?? [])].map(({ name }) => name);
  const form = h(
    'form',
    { class: 'break' },
    h('label', { class: 'field' }, t('fault'), fault),
    chosen && h('p', { class: 'quiet', lang: 'en' }, `${chosen.does} — ${chosen.seen}`),
    h('label', { class: 'field' }, t('target'), on),
    h('datalist', { id: 'targets' }, names.map((name) => h('option', { value: name }))),
    h('p', { class: 'row' }, h('button', { type: 'submit', id: 'break', disabled: known.busy }, t('breakIt'))),
  );
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    void act(async () => {
      const { broken } = await post<{ broken: Fault }>('/api/break', { fault: fault.value, ...(on.value.trim() && { on: on.value.trim() }) });
      known.broken.push(broken);
    });
  });
  const count = Math.max(known.broken.length, state.lab?.faults ?? 0);
  return [
    h('h2', {}, t('breakIt')),
    form,
    h('h3', {}, t('broken')),
    count === 0
      ? h('p', { class: 'quiet' }, t('nothingBroken'))
      : h(
          'div',
          {},
          h('p', {}, t('brokenCount', { count })),
          h('ul', { class: 'broken' }, known.broken.map((one) => h('li', {}, inEnglish(`${one.fault} · ${one.target} `), button(t('heal'), () => void act(() => heal({ id: one.number }, one)), { id: `heal-${one.number}`, disabled: known.busy })))),
          button(t('healAll'), () => void act(() => heal({ all: true })), { id: 'heal-all', disabled: known.busy }),
        ),
  ];
}

async function heal(which: { id: number } | { all: true }, one?: Fault): Promise<void> {
  await post('/api/heal', which);
  known.broken = one ? known.broken.filter((other) => other !== one) : [];
}

async function verify(): Promise<void> {
  known.report = await post<Report>('/api/verify');
  known.matrix = await getText('/api/heatmap.svg');
}

function report(it: Report): HTMLElement {
  const svg = known.matrix ? readSvg(known.matrix) : null;
  const rows = it.checks.filter((check) => check.verdicts.length > 0).map((check) => {
    const worst = check.verdicts.find((verdict) => verdict.ruling !== 'PASS') ?? check.verdicts[0]!;
    const good = worst.ruling === 'PASS';
    return h(
      'tr',
      { 'data-check': check.name },
      h('th', { scope: 'row' }, inEnglish(check.title)),
      h('td', {}, String(check.verdicts.length)),
      h('td', { class: good ? 'good' : 'bad' }, `${good ? '✔' : '✘'} ${worst.ruling}`),
      h('td', {}, inEnglish(good ? worst.evidence : `${worst.subject}: ${worst.evidence}`)),
    );
  });
  return h(
    'div',
    { class: 'report', id: 'report', 'data-failed': it.failed },
    h('p', { role: 'status' }, h('b', { class: 'good' }, `✔ ${t('passed', { count: it.passed })}`), ' · ', h('b', { class: it.failed > 0 ? 'bad' : '' }, `${it.failed > 0 ? '✘ ' : ''}${t('failedCount', { count: it.failed })}`)),
    h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': t('verify') }, h('table', {}, h('thead', {}, h('tr', {}, [t('thCheck'), t('thCount'), t('thResult'), t('thEvidence')].map((head) => h('th', { scope: 'col' }, head)))), h('tbody', {}, rows))),
    svg && h('figure', { class: 'matrix' }, h('figcaption', {}, t('matrix')), matrix(svg.svg, svg.css)),
  );
}

function matrix(svg: SVGSVGElement, css: string): SVGSVGElement {
  if (css) {
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(`@layer matrix { @scope (.matrix) { ${css} } }`);
    document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet].slice(-4);
  }
  return svg;
}
