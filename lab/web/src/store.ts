// What the page is showing. Two kinds of news: a step (light: what is there changes its marks) and a build (everything is
// made anew: another walk, language or filter).

import { align, latest, type Pair } from './align';
import { setLang, type Lang } from './i18n';
import { NOWHERE, readLink, writeLink, type Place } from './link';
import { clampStep, keepStep, sightings, USUAL, visible, type Filter, type Sighting } from './model';
import type { Boot, Lab, WalkDocument } from './types';

export interface Prefs {
  lang: Lang;
  theme: 'auto' | 'light' | 'dark';
  projector: boolean;
  predict: boolean;
  speed: number;
  tab: 'walk' | 'lesson' | 'lab';
  shown: Omit<Filter, 'only'>;
}

/** An open walk. */
export interface Open {
  id: string;
  doc: WalkDocument;
  rows: Sighting[];
  shown: Sighting[];
}

const { only: _, ...usual } = USUAL;
const KEY = 'podlab.page';

export const state = {
  boot: {} as Boot,
  place: { ...NOWHERE } as Place,
  prefs: {
    lang: navigator.language.startsWith('ko') ? 'ko' : 'en',
    theme: 'auto',
    projector: false,
    predict: false,
    speed: 1,
    tab: 'walk',
    shown: usual,
  } as Prefs,
  walk: null as Open | null,
  other: null as Open | null,
  pairs: null as Pair[] | null,
  /** The furthest step seen; what is behind it is veiled while predicting. */
  reached: 1,
  /** The live lab. */
  lab: null as Lab | null,
  /** What went wrong last, in words. */
  trouble: '',
};

const listeners = { step: new Set<(from: number) => void>(), build: new Set<() => void>() };

export function onStep(listener: (from: number) => void): void {
  listeners.step.add(listener);
}

export function onBuild(listener: () => void): void {
  listeners.build.add(listener);
}

export function build(): void {
  setLang(state.prefs.lang);
  for (const listener of listeners.build) listener();
}

/** How many steps there are. */
export function count(): number {
  return state.pairs?.length ?? state.walk?.shown.length ?? 0;
}

/** The sighting of a side at a step; in compare mode the last one that this side has by then. */
export function at(step: number, side: 'a' | 'b' = 'a'): Sighting | undefined {
  if (state.pairs) return latest(state.pairs, step, side);
  return side === 'a' ? state.walk?.shown[step - 1] : undefined;
}

/** Goes to a step, or as near as there is. */
export function go(step: number): void {
  const from = state.place.step;
  state.place.step = clampStep(step, count());
  state.reached = Math.max(state.reached, state.place.step);
  remember();
  for (const listener of listeners.step) listener(from);
}

export function filter(): Filter {
  return { ...state.prefs.shown, only: state.place.pkt };
}

/** Chooses anew what is shown; the sighting shown stays, if it may. */
export function refilter(): void {
  const index = at(state.place.step)?.index ?? 0;
  arrange();
  state.place.step = state.pairs ? clampStep(state.place.step, count()) : keepStep(state.walk?.shown ?? [], index);
  settle();
}

export function setWalk(id: string, doc: WalkDocument | null, step = 1): void {
  state.walk = doc && opened(id, doc);
  state.place.walk = id;
  state.reached = 1;
  arrange();
  state.place.step = clampStep(step, count());
  settle();
}

export function setOther(id: string, doc: WalkDocument | null): void {
  state.other = doc && opened(id, doc);
  state.place.with = doc ? id : '';
  arrange();
  state.place.step = clampStep(state.place.step, count());
  settle();
}

function opened(id: string, doc: WalkDocument): Open {
  return { id, doc, rows: sightings(doc.trace), shown: [] };
}

function arrange(): void {
  const { walk, other } = state;
  if (walk) walk.shown = visible(walk.rows, filter());
  if (other) other.shown = visible(other.rows, { ...filter(), only: '' });
  state.pairs = walk && other ? align(walk.shown, other.shown) : null;
}

function settle(): void {
  state.reached = Math.max(state.reached, state.place.step);
  remember();
  build();
}

export function setPrefs(change: Partial<Prefs>): void {
  Object.assign(state.prefs, change);
  remember();
  build();
}

/** Opens a lesson, or the list of them. */
export function setLesson(id: string): void {
  state.place.lesson = id;
  remember();
  build();
}

function remember(): void {
  history.replaceState(null, '', writeLink(state.place));
  keep(KEY, JSON.stringify(state.prefs));
}

/** Reads what was kept and where the link leads. */
export function recall(): void {
  try {
    const kept = JSON.parse(recalled(KEY) ?? '{}') as Partial<Prefs>;
    Object.assign(state.prefs, kept, { shown: { ...state.prefs.shown, ...kept.shown } });
  } catch {
    // Kept by another version: as if nothing were kept.
  }
  state.place = readLink(location.hash);
}

/** Keeps a value in this browser, where it lets a page do so. */
export function keep(key: string, value: string, where: 'local' | 'session' = 'local'): void {
  try {
    (where === 'local' ? localStorage : sessionStorage).setItem(key, value);
  } catch {
    // A browser that keeps nothing shows everything all the same.
  }
}

export function recalled(key: string, where: 'local' | 'session' = 'local'): string | null {
  try {
    return (where === 'local' ? localStorage : sessionStorage).getItem(key);
  } catch {
    return null;
  }
}
