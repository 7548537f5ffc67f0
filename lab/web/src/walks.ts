// Opening walks: recorded ones, files, and real packets now.

import { button, h, inEnglish, put } from './dom';
import { hasServer, post, recorded } from './api';
import { said, t } from './i18n';
import { predictBox } from './predict';
import { build, keep, recalled, setOther, setWalk, state } from './store';
import type { WalkDocument } from './types';

/** Opened here and not recorded by the server: by id. Those of a tab outlive its reload. */
const opened = new Map<string, WalkDocument>();

export function trouble(error: unknown): void {
  state.trouble = t('failed', { error: error instanceof Error ? error.message : String(error) });
  build();
}

function known(id: string): WalkDocument | undefined {
  const here = opened.get(id) ?? (state.boot.walk && id === ownId() ? state.boot.walk : undefined);
  if (here) return here;
  const kept = recalled(`podlab.walk.${id}`, 'session');
  return kept === null ? undefined : (JSON.parse(kept) as WalkDocument);
}

/** The id of the walk that is in the file itself. */
export function ownId(): string {
  return state.boot.walk?.id ?? 'walk';
}

/** Every walk that can be opened: id and title. */
export function choices(): { id: string; title: string }[] {
  const all = (state.boot.walks ?? []).map(({ id, title }) => ({ id, title: said(title) }));
  if (state.boot.walk) all.unshift({ id: ownId(), title: titleOf(state.boot.walk) });
  for (const [id, doc] of opened) if (!all.some((one) => one.id === id)) all.push({ id, title: titleOf(doc) });
  for (const id of [state.place.walk, state.place.with]) {
    const doc = id && !all.some((one) => one.id === id) ? known(id) : undefined;
    if (doc) all.push({ id, title: titleOf(doc) });
  }
  return all;
}

export function titleOf(doc: WalkDocument): string {
  return said(doc.titles ?? doc.title);
}

export async function fetchWalk(id: string): Promise<WalkDocument> {
  const doc = known(id) ?? (await recorded(id));
  if (doc.schema !== 'podlab.walk/1') throw new Error(t('badFile', { error: String(doc.schema) }));
  opened.set(id, doc);
  return doc;
}

export async function openWalk(id: string, step = 1): Promise<void> {
  try {
    const doc = await fetchWalk(id);
    state.trouble = '';
    if (id !== state.place.walk) state.place.pkt = '';
    setWalk(id, doc, step);
  } catch (error) {
    trouble(error);
  }
}

export async function openOther(id: string): Promise<void> {
  try {
    setOther(id, id ? await fetchWalk(id) : null);
  } catch (error) {
    trouble(error);
  }
}

/** Takes a document that was just made or read, and shows it. */
export function take(doc: WalkDocument, prefix: string): void {
  let number = 1;
  while (opened.has(`${prefix}-${number}`) || recalled(`podlab.walk.${prefix}-${number}`, 'session') !== null) number++;
  const id = `${prefix}-${number}`;
  opened.set(id, doc);
  keep(`podlab.walk.${id}`, JSON.stringify(doc), 'session');
  state.trouble = '';
  state.place.pkt = '';
  setWalk(id, doc);
}

function fileInput(): HTMLElement {
  const input = h('input', { type: 'file', id: 'file', accept: '.json,application/json' });
  input.addEventListener('change', () => {
    const file = input.files?.[0];
    if (!file) return;
    file
      .text()
      .then((text) => {
        const doc = JSON.parse(text) as WalkDocument;
        if (doc.schema !== 'podlab.walk/1') throw new Error(t('badFile', { error: String(doc.schema) }));
        if (state.walk) {
          opened.set('file', doc);
          void openOther('file');
        } else take(doc, 'file');
      })
      .catch(trouble);
  });
  return h('label', { class: 'file' }, t('openFile'), input);
}

export function walkSelect(id: string, chosen: string, none: string | null, choose: (id: string) => void): HTMLSelectElement {
  const all = choices();
  const select = h(
    'select',
    { id },
    none !== null && h('option', { value: '' }, none),
    all.map((one) => h('option', { value: one.id, selected: one.id === chosen }, one.title)),
  );
  select.addEventListener('change', () => choose(select.value));
  return select;
}

export function copyable(text: string): HTMLElement {
  const copy = button(t('copy'), () => {
    void navigator.clipboard?.writeText(text).then(
      () => (copy.textContent = t('copied')),
      () => undefined,
    );
  });
  return h('div', { class: 'command' }, h('pre', { tabindex: '0', lang: 'en' }, text), copy);
}

/** The panel on the left: which walk, what it shows, how to see it oneself. */
export function walkPanel(): HTMLElement {
  const doc = state.walk?.doc;
  const panel = h('section', { class: 'panel goal', 'aria-label': t('goal'), id: 'goal', tabindex: '0' });
  put(
    panel,
    choices().length > 0 && h('label', { class: 'field' }, t('walk'), walkSelect('walk', state.place.walk, state.walk ? null : t('nothing'), (id) => void openWalk(id))),
    doc && h('h2', {}, titleOf(doc)),
    predictBox(),
    doc && [
      h('p', { class: `ruling ${doc.trace.ruling.toLowerCase()}` }, h('b', {}, `${doc.trace.ruling === 'PASS' ? '✔' : '✘'} ${t('verdict')}: `), inEnglish(doc.trace.verdict.split('; ')[0]!)),
      doc.trace.verdict.includes('; ') && h('details', { class: 'more' }, h('summary', { id: 'more' }, `+ ${doc.trace.verdict.split('; ').length - 1}`), h('ul', { class: 'evidence', lang: 'en' }, doc.trace.verdict.split('; ').slice(1).map((clause) => h('li', {}, clause)))),
      doc.trace.encrypted.length > 0 && h('p', { lang: 'en' }, doc.trace.encrypted.map(({ looks, packets }) => `${looks} ×${packets}`).join('; ')),
      doc.again !== undefined && [h('h3', {}, t('again')), copyable(doc.again)],
    ],
    state.boot.live === true && sender(),
    fileInput(),
  );
  return panel;
}

/** A real packet, now. */
function sender(): HTMLElement {
  const { lab } = state;
  const names = [...(lab?.pods.map((pod) => pod.name) ?? []), 'outside'];
  const last = state.walk?.doc.trace;
  const choose = (id: string, chosen: string | undefined): HTMLSelectElement =>
    h('select', { id }, names.map((name) => h('option', { selected: name === chosen }, name)));
  const from = choose('from', last?.source ?? names[0]);
  const to = h('input', { id: 'to', list: 'places', value: last?.target ?? names.at(-2) ?? '', autocomplete: 'off', spellcheck: 'false' });
  const protocol = h('select', { id: 'protocol', 'aria-label': t('thPacket') }, ['tcp', 'udp', 'icmp'].map((p) => h('option', { selected: p === last?.protocol }, p)));
  const made = h(
    'form',
    { class: 'sender' },
    h('h3', {}, t('traceNow')),
    h('label', { class: 'field' }, t('from'), from),
    h('label', { class: 'field' }, t('to'), to),
    h('datalist', { id: 'places' }, names.map((name) => h('option', { value: name }))),
    h('p', { class: 'row' }, protocol, h('button', { type: 'submit', class: 'primary', id: 'send' }, t('traceNow'))),
  );
  made.addEventListener('submit', (event) => {
    event.preventDefault();
    if (!hasServer()) return;
    const [target, port] = to.value.split(/:(\d+)$/);
    post<WalkDocument>('/api/trace', { from: from.value, to: target, protocol: protocol.value, ...(port && { port: Number(port) }) })
      .then((doc) => take(doc, 'live'))
      .catch(trouble);
  });
  return made;
}
