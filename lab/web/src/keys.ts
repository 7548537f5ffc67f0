// Keys of the whole page. Where a key has a meaning of its own, as in a field, it keeps it.

import { stepForth, stepTo } from './controls';
import { togglePlay } from './play';
import { count, setPrefs, state } from './store';

export interface Actions {
  layer: (by: number) => void;
  compare: () => void;
  help: () => void;
}

export function listenToKeys(actions: Actions): void {
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const target = event.target as HTMLElement;
    const { key } = event;
    if (target.closest('input:not([type=checkbox], [type=radio], [type=range]), select, textarea, dialog[open]')) return;
    // A choice and a slider have arrows of their own.
    if (target.closest('[type=radio], [type=range]') && !/^[a-z?]$/i.test(key)) return;
    // Space and Enter press what has the focus.
    if (key === ' ' && target.closest('button, a, summary, [type=checkbox]')) return;
    const verbs: Record<string, () => void> = {
      ' ': togglePlay,
      ArrowRight: stepForth,
      ArrowLeft: () => stepTo(state.place.step - 1),
      Home: () => stepTo(1),
      End: () => stepTo(count()),
      ArrowUp: () => actions.layer(-1),
      ArrowDown: () => actions.layer(1),
      p: () => {
        state.reached = state.place.step;
        setPrefs({ predict: !state.prefs.predict });
      },
      c: actions.compare,
      l: () => setPrefs({ lang: state.prefs.lang === 'en' ? 'ko' : 'en' }),
      '?': actions.help,
    };
    // On a Korean keyboard the same keys write other letters.
    const letter = { KeyP: 'p', KeyC: 'c', KeyL: 'l' }[event.code];
    const verb = verbs[letter ?? key];
    if (!verb) return;
    event.preventDefault();
    verb();
  });
}
