// Predict first, then see: questions about the next sighting, and the score, kept in this browser only.

import { button, h, put } from './dom';
import { t } from './i18n';
import type { Key } from './en';
import { marked, questions, type Question, type Score, type Subject } from './score';
import { at, count, go, keep, recalled, state } from './store';

const ASK: Record<Subject, Key> = { interface: 'askInterface', source: 'askSource', ttl: 'askTtl' };

let pending: Question[] | null = null;
let result: { question: Question; answer: string | undefined }[] | null = null;

function scoreKey(): string {
  return `podlab.score.${state.place.walk}`;
}

export function score(): Score {
  try {
    const kept = JSON.parse(recalled(scoreKey()) ?? '') as Score;
    if (Number.isInteger(kept.right) && Number.isInteger(kept.asked)) return kept;
  } catch {
    // Nothing kept.
  }
  return { right: 0, asked: 0 };
}

/** The next step, or first the questions about it. Returns whether the step was made. */
export function predictOrGo(): boolean {
  const step = state.place.step;
  result = null;
  if (!state.prefs.predict || state.pairs || step >= count() || step < state.reached) {
    pending = null;
    go(step + 1);
    return true;
  }
  const [now, next] = [at(step), at(step + 1)];
  const asked = now && next ? questions(state.walk!.shown, now, next) : [];
  if (asked.length === 0) {
    pending = null;
    go(step + 1);
    return true;
  }
  const already = pending !== null;
  pending = asked;
  if (!already) draw();
  (document.querySelector<HTMLElement>('#predict input:checked') ?? document.querySelector<HTMLElement>('#predict input'))?.focus();
  return false;
}

/** Takes away what was asked, as when another step is shown. */
export function forget(): void {
  pending = null;
  draw();
}

let box: HTMLElement | null = null;

export function predictBox(): HTMLElement {
  box = h('section', { class: 'predict', id: 'predict', 'aria-label': t('predict') });
  draw();
  return box;
}

function draw(): void {
  if (!box) return;
  box.hidden = !state.prefs.predict;
  if (!state.prefs.predict) return;
  const { right, asked } = score();
  put(
    box,
    h('h3', {}, t('predictTitle')),
    pending && form(pending),
    result && h('ul', { class: 'marks', role: 'status' }, result.map(({ question, answer }) => {
      const good = answer === question.right;
      return h('li', { class: good ? 'good' : 'bad' }, good ? '✔ ' : '✘ ', `${t(ASK[question.subject])} `, h('b', { class: 'mono' }, answer ?? '—'), ` ${good ? t('rightAnswer') : t('wrongAnswer', { right: question.right })}`);
    })),
    h('p', { class: 'row' }, h('span', { id: 'score' }, t('score', { right, asked })), button(t('resetScore'), () => {
      keep(scoreKey(), JSON.stringify({ right: 0, asked: 0 }));
      result = null;
      state.reached = 1;
      pending = null;
      go(1);
      draw();
    }, { id: 'score-reset' })),
  );
}

function form(asked: Question[]): HTMLElement {
  const made = h(
    'form',
    {},
    asked.map((question) =>
      h('fieldset', {}, h('legend', {}, t(ASK[question.subject])), question.choices.map((choice) =>
        h('label', {}, h('input', { type: 'radio', name: question.subject, value: choice }), h('span', { class: 'mono' }, choice)))),
    ),
    h('button', { type: 'submit', class: 'primary', id: 'reveal' }, t('reveal')),
  );
  made.addEventListener('submit', (event) => {
    event.preventDefault();
    const given = new FormData(made);
    const answers: Partial<Record<Subject, string>> = {};
    for (const { subject } of asked) {
      const value = given.get(subject);
      if (typeof value === 'string') answers[subject] = value;
    }
    keep(scoreKey(), JSON.stringify(marked(score(), asked, answers)));
    const marks = asked.map((question) => ({ question, answer: answers[question.subject] }));
    go(state.place.step + 1);
    result = marks;
    draw();
    document.getElementById('next')?.focus();
  });
  return made;
}
