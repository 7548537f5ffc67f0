// Lessons: the list, one lesson with its commands, and what its verbs say.

import { button, h, put, type Child } from './dom';
import { get, hasServer, post } from './api';
import { lang, t, type Lang } from './i18n';
import { markdown } from './markdown';
import { build, setLesson, state } from './store';

interface Listed {
  id: string;
  number: number;
  title: string;
  minutes: number;
  state: string;
  passed: boolean;
}

interface Shown {
  id: string;
  number: number;
  title: string;
  minutes: number;
  checks: string[];
  blocks: { kind: string; title: string; text: string }[];
}

interface Said {
  lab?: string;
  then?: string;
  ran?: string[];
  hint?: { number: number; of: number; text: string };
  passed?: boolean;
  checks?: { title: string; passed: boolean; expected: string; observed: string }[];
}

const read = new Map<string, Promise<unknown>>();
let told: Said | null = null;
let busy = false;
let wrong = '';

/** Asks once for each language; a failure may be asked again. */
function once<T>(path: string): Promise<T> {
  const asked = read.get(path) ?? get<T>(path);
  read.set(path, asked);
  asked.catch(() => read.delete(path));
  return asked as Promise<T>;
}

export function lessonPanel(): HTMLElement {
  const panel = h('section', { class: 'panel lesson', id: 'lesson', 'aria-label': t('lessons'), tabindex: '0' });
  if (!hasServer()) {
    put(panel, h('p', {}, t('noLessons')));
    return panel;
  }
  void fill(panel, state.place.lesson, lang());
  return panel;
}

async function fill(panel: HTMLElement, id: string, language: Lang): Promise<void> {
  put(panel, h('p', { class: 'quiet' }, t('loading')));
  try {
    const { lessons } = await once<{ lessons: Listed[] }>(`/api/lessons?lang=${language}`);
    const found = lessons.find((lesson) => lesson.id === id || String(lesson.number) === id);
    const made = found ? one(await once<Shown>(`/api/lessons/${found.id}?lang=${language}`)) : list(lessons);
    if (panel.isConnected && language === lang()) put(panel, made);
  } catch (error) {
    put(panel, h('p', { class: 'bad', role: 'alert' }, t('failed', { error: (error as Error).message })));
  }
}

function choose(id: string): void {
  told = null;
  wrong = '';
  // The state of each is read anew.
  read.clear();
  setLesson(id);
  document.getElementById('lesson')?.focus();
}

function list(lessons: Listed[]): Child {
  if (lessons.length === 0) return h('p', {}, t('noLessons'));
  return h(
    'ol',
    { class: 'lessons' },
    lessons.map((lesson) =>
      h('li', {}, button(`${lesson.number}. ${lesson.title}`, () => choose(String(lesson.number)), { id: `lesson-${lesson.number}` }), ' ', h('span', { class: 'quiet' }, `${lesson.minutes}′ ${lesson.passed ? `✔ ${t('checkPass')}` : ''}`)),
    ),
  );
}

function one(lesson: Shown): Child {
  const verb = (name: string, label: string, more = {}): HTMLElement => button(label, () => void act(lesson.id, name), { id: `do-${name}`, disabled: busy, ...more });
  return [
    button(`‹ ${t('back2list')}`, () => choose(''), { id: 'all-lessons' }),
    h('h2', {}, `${lesson.number}. ${lesson.title}`),
    h('p', { class: 'row' }, verb('start', t('start')), verb('check', t('check'), { class: 'primary' }), verb('hint', t('hint')), verb('reset', t('reset')), verb('solve', t('solve'))),
    h('div', { role: 'status', class: 'told' }, busy && t('working'), wrong && h('p', { class: 'bad' }, wrong), told && saying(told)),
    lesson.blocks.map((block) => h('section', { class: `block ${block.kind}` }, h('h3', {}, block.title), markdown(block.text))),
  ];
}

function saying(it: Said): Child {
  return [
    it.passed !== undefined && h('p', { class: it.passed ? 'good' : 'bad', id: 'check-result' }, it.passed ? `✔ ${t('checkPass')}` : `✘ ${t('checkFail')}`),
    it.checks?.map((check) => h('p', {}, `${check.passed ? '✔' : '✘'} ${check.title}`, !check.passed && h('span', { class: 'quiet' }, ` ${check.expected} ≠ ${check.observed}`))),
    it.hint && h('p', {}, `${it.hint.number}/${it.hint.of}: ${it.hint.text}`),
    it.ran?.map((line) => h('pre', { tabindex: '0', lang: 'en' }, line)),
    it.then && h('p', {}, it.then),
  ];
}

async function act(id: string, verb: string): Promise<void> {
  busy = true;
  told = null;
  wrong = '';
  build();
  try {
    told = await post<Said>(`/api/lessons/${id}/${verb}?lang=${lang()}`);
    // The page of another lab is another page: pictures, faults and events are its.
    if (told.lab && (state.boot.live !== true || told.lab !== state.boot.name)) return location.reload();
  } catch (error) {
    wrong = t('failed', { error: (error as Error).message });
  }
  busy = false;
  build();
}
