// Puts the page together. What it shows is in the store; each part makes its own elements.

import './style.css';
import './picture.css';
import './panels.css';
import { exportHtml, exportMarkdown, exportPackets, exportPng, exportSvg, hasPackets } from './export';
import { button, h, inEnglish, put, sign } from './dom';
import { hasServer, takeToken } from './api';
import { Controls, preference } from './controls';
import { drawingLayer } from './draw';
import { helpDialog } from './help';
import { t } from './i18n';
import { listenToKeys } from './keys';
import { labPanel, startLab } from './lab';
import { Ladder } from './ladder';
import { lessonPanel } from './lessons';
import { openNotes, showNotes } from './notes';
import { PacketPanel } from './packet';
import type { Sighting } from './model';
import { Picture } from './picture';
import { isPlaying, onPlay } from './play';
import { forget } from './predict';
import { at, build, count, onBuild, onStep, recall, setPrefs, state, type Prefs } from './store';
import { HopTable } from './table';
import type { Boot } from './types';
import { choices, fetchWalk, openOther, openWalk, ownId, titleOf, trouble, walkPanel, walkSelect } from './walks';
import { sentence } from './why';

const app = document.getElementById('app')!;
const announcer = h('p', { class: 'unseen', 'aria-live': 'polite', id: 'announcer' });
const drawing = drawingLayer();
let parts: { pictures: Picture[]; packet: PacketPanel; table: HopTable; ladder: Ladder | null; controls: Controls } | null = null;
let isDrawing = false;

function header(): HTMLElement {
  const { boot, prefs, walk } = state;
  const tool = (label: string, run: () => void, more = {}): HTMLElement => button(label, run, more);
  const exports: [string, string, () => unknown, boolean][] = [
    ['svg', t('exportSvg'), () => parts?.pictures[0]?.svg && exportSvg(parts.pictures[0].svg), true],
    ['png', t('exportPng'), () => parts?.pictures[0]?.svg && exportPng(parts.pictures[0].svg), true],
    ['pcapng', t('exportPcap'), exportPackets, hasPackets()],
    ['md', t('exportMd'), exportMarkdown, true],
    ['html', t('exportHtml'), exportHtml, true],
    ['link', t('exportLink'), () => navigator.clipboard?.writeText(location.href), true],
  ];
  const themes = { auto: 'dark', dark: 'light', light: 'auto' } as const;
  return h(
    'header',
    {},
    h('h1', {}, h('span', { class: 'brand', lang: 'en' }, 'podlab'), ' ', t('page')),
    h('span', { class: `state ${boot.live ? 'live' : ''}` }, boot.live ? [`● ${t('live')} `, inEnglish(boot.name ?? '')] : `○ ${t('recorded')}`),
    h(
      'div',
      { class: 'tools', role: 'group', 'aria-label': t('menu') },
      preference('predict', t('predict')),
      tool(t('compare'), compare, { id: 'compare', 'aria-pressed': String(state.pairs !== null), disabled: choices().length < 2 }),
      preference('projector', t('projector')),
      tool(t('notes'), () => openNotes() || trouble(t('popupBlocked')), { id: 'notes' }),
      tool(t('draw'), () => {
        isDrawing = !isDrawing;
        if (!isDrawing) drawing.wipe();
        build();
      }, { id: 'draw', 'aria-pressed': String(isDrawing) }),
      walk && h('details', { class: 'menu' }, h('summary', { id: 'exports' }, t('exports')), h('div', { class: 'menu-items' }, exports.filter(([, , , can]) => can).map(([id, label, run]) =>
        tool(label, () => void Promise.resolve(run()).catch(trouble), { id: `export-${id}` })))),
      tool(prefs.lang === 'en' ? '한국어' : 'English', () => setPrefs({ lang: prefs.lang === 'en' ? 'ko' : 'en' }), { id: 'lang', lang: prefs.lang === 'en' ? 'ko' : 'en' }),
      sign({ auto: '◐', dark: '☾', light: '☀' }[prefs.theme], t('theme'), () => setPrefs({ theme: themes[prefs.theme] }), { id: 'theme' }),
      sign('?', t('help'), help, { id: 'help-open' }),
    ),
  );
}

function help(): void {
  document.querySelector<HTMLDialogElement>('#help')?.showModal();
}

function compare(): void {
  if (state.pairs) return void openOther('');
  const second = choices().find((one) => one.id !== state.place.walk);
  if (second) void openOther(second.id);
}

function side(): HTMLElement {
  const { tab } = state.prefs;
  const tabs: [Prefs['tab'], string][] = [['walk', t('walk')], ['lesson', t('lessons')], ['lab', t('labTab')]];
  return h(
    'div',
    { class: 'side' },
    hasServer() && h('div', { class: 'tabs', role: 'group', 'aria-label': t('menu') }, tabs.map(([id, label]) => button(label, () => setPrefs({ tab: id }), { id: `tab-${id}`, 'aria-pressed': String(tab === id) }))),
    !hasServer() || tab === 'walk' ? walkPanel() : tab === 'lesson' ? lessonPanel() : labPanel(),
  );
}

function middle(): HTMLElement {
  const { walk, other } = state;
  if (!walk || !parts) return h('div', { class: 'stage' }, h('p', { class: 'panel' }, t('noWalk')));
  const name = (i: number): string => (i === 0 ? 'A' : 'B');
  return h(
    'div',
    { class: other ? 'stage two' : 'stage' },
    other && h(
      'div',
      { class: 'against' },
      h('label', { class: 'field' }, `A · ${t('walk')}`, walkSelect('walk', state.place.walk, null, (id) => void openWalk(id))),
      h('label', { class: 'field' }, `B · ${t('compareWith')}`, walkSelect('with', state.place.with, t('nothing'), (id) => void openOther(id))),
    ),
    h('div', { class: 'pictures' }, parts.pictures.map((picture, i) => h('div', { class: 'pane', role: 'group', 'aria-label': name(i) }, picture.element)), isDrawing && drawing.element),
  );
}

function make(): void {
  const { prefs, walk, other, pairs, boot } = state;
  const focused = document.activeElement?.id ?? '';
  document.documentElement.lang = prefs.lang;
  document.documentElement.dataset['theme'] = prefs.theme;
  document.documentElement.classList.toggle('projector', prefs.projector);
  document.title = walk ? `${titleOf(walk.doc)} · podlab` : `${t('page')} · podlab`;
  const pictures = [walk, other].flatMap((open, i) => (open ? [new Picture(open.doc, `${t('picture')}: ${titleOf(open.doc)}`, `picture-${i === 0 ? 'a' : 'b'}`)] : []));
  parts = { pictures, packet: new PacketPanel(), table: new HopTable(), ladder: walk && !pairs ? new Ladder(walk.shown) : null, controls: new Controls() };
  app.dataset['live'] = String(boot.live === true);
  put(
    app,
    header(),
    state.trouble !== '' && h('p', { class: 'trouble bad', role: 'alert' }, state.trouble),
    h('div', { class: !walk ? 'upper empty' : other ? 'upper comparing' : 'upper' }, !other && side(), middle(), walk && parts.packet.element),
    walk && h('div', { class: 'lower' }, parts.controls.element, h('div', { class: 'tracks' }, parts.ladder?.element, parts.table.element)),
    helpDialog(),
    announcer,
  );
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  look();
  show(state.place.step, false);
}

/** Where a walk goes: what ARP asks is heard by many more. */
function way(rows: Sighting[]): string[] {
  const hops = rows.filter((row) => row.kind !== 'arp');
  return (hops.length > 0 ? hops : rows).map((row) => row.at);
}

/** Brings each picture to where its walk is. */
function look(): void {
  const { walk, other } = state;
  if (walk) parts?.pictures[0]?.focus(way(walk.rows));
  if (other) parts?.pictures[1]?.focus(way(other.rows));
}

/** Shows the step: only what is marked changes. */
function show(from: number, isMoving = true): void {
  if (!parts || !state.walk) return;
  const { step } = state.place;
  const [now, then] = [at(step), isMoving && Math.abs(step - from) === 1 ? at(from) : undefined];
  parts.pictures[0]?.show(now, then);
  if (state.other) parts.pictures[1]?.show(at(step, 'b'), isMoving && Math.abs(step - from) === 1 ? at(from, 'b') : undefined);
  parts.packet.show();
  parts.table.show();
  parts.ladder?.show();
  parts.controls.show();
  app.dataset['step'] = String(step);
  app.dataset['steps'] = String(count());
  if (now && isMoving && (!isPlaying() || now.changed.length > 0 || now.lost || step === count())) announcer.textContent = sentence(state.prefs.lang, now);
  follow();
  showNotes();
}

/** Keeps the current row and rung in sight, once a frame, after everything is written. */
let waiting = false;
function follow(): void {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    if (!parts) return;
    const { table, ladder, pictures } = parts;
    for (const picture of pictures) picture.follow();
    const row = table.current();
    if (row) keepInSight(table.element, row.offsetTop, row.offsetHeight, 60);
    if (!ladder) return;
    const { x, y } = ladder.offset();
    keepInSight(ladder.element, y + 34, 22, 34);
    const { scrollLeft, clientWidth } = ladder.element;
    if (x < scrollLeft + 70 || x > scrollLeft + clientWidth - 40) ladder.element.scrollLeft = x - clientWidth / 2;
  });
}

function keepInSight(box: HTMLElement, top: number, height: number, head: number): void {
  if (box.scrollHeight <= box.clientHeight) return;
  if (top < box.scrollTop + head) box.scrollTop = top - head;
  else if (top + height > box.scrollTop + box.clientHeight) box.scrollTop = top + height - box.clientHeight + 40;
}

async function start(): Promise<void> {
  state.boot = JSON.parse(document.getElementById('podlab-boot')?.textContent || '{}') as Boot;
  takeToken();
  // Without one a browser asks the server for an icon.
  document.head.append(h('link', { rel: 'icon', href: 'data:,' }));
  recall();
  onBuild(make);
  onStep((from) => {
    if (state.prefs.predict) forget();
    show(from);
  });
  onPlay(() => parts?.controls.playing());
  listenToKeys({ layer: (by) => parts?.packet.choose(by), compare, help });
  window.addEventListener('resize', look);
  window.addEventListener('hashchange', () => {
    const { walk, with: other, step } = state.place;
    recall();
    if (state.place.walk !== walk || state.place.with !== other) void arrive();
    else if (state.place.step !== step) build();
  });
  if (state.place.lesson) state.prefs.tab = 'lesson';
  build();
  if (state.boot.live) void startLab();
  await arrive();
}

/** Opens what the link says, or the first walk there is. */
async function arrive(): Promise<void> {
  const { walk, with: other, step } = state.place;
  const id = state.boot.walk && (!walk || !hasServer()) ? (walk || ownId()) : walk || state.boot.walks?.[0]?.id;
  if (!id) return;
  if (other) await fetchWalk(other).catch(() => undefined);
  await openWalk(id, step);
  if (other) await openOther(other);
  if (other && state.place.step !== step) {
    state.place.step = Math.min(step, count());
    build();
  }
}

void start();
