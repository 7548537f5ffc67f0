// Playing: one step after another until the end, or until somebody wants to say what comes next.

import { count, go, state } from './store';

const MS = 1400;
let timer: ReturnType<typeof setTimeout> | undefined;
const listeners = new Set<(on: boolean) => void>();

export function isPlaying(): boolean {
  return timer !== undefined;
}

export function onPlay(listener: (on: boolean) => void): void {
  listeners.add(listener);
}

export function pause(): void {
  if (timer === undefined) return;
  clearTimeout(timer);
  timer = undefined;
  for (const listener of listeners) listener(false);
}

export function togglePlay(): void {
  if (isPlaying()) return pause();
  if (state.prefs.predict && !state.pairs && state.reached < count()) return;
  if (state.place.step >= count()) go(1);
  wait();
  for (const listener of listeners) listener(true);
}

function wait(): void {
  timer = setTimeout(() => {
    go(state.place.step + 1);
    if (state.place.step >= count()) pause();
    else wait();
  }, MS / state.prefs.speed);
}
