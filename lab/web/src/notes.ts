// The presenter's notes: a second window that follows the steps. It has no address of its own, so it works from a file too.

import { t } from './i18n';
import { at, count, state } from './store';
import { sentence } from './why';

let other: Window | null = null;

/** Opens the window, or brings it to the front. Whether the browser let us. */
export function openNotes(): boolean {
  other = window.open('', 'podlab-notes', 'popup,width=640,height=520');
  if (!other) return false;
  const sheet = new (other as Window & typeof globalThis).CSSStyleSheet();
  sheet.replaceSync('body{font:1.25rem/1.5 system-ui,sans-serif;margin:1.5rem;background:#fff;color:#16202c}h1{font-size:1rem}p.now{font-size:1.5rem}small{color:#4a5665}');
  other.document.adoptedStyleSheets = [sheet];
  showNotes();
  return true;
}

export function showNotes(): void {
  if (!other || other.closed) return;
  const { document: page } = other;
  page.title = t('noteTitle');
  page.documentElement.lang = state.prefs.lang;
  const element = (tag: string, text: string, name = ''): HTMLElement => {
    const made = page.createElement(tag);
    made.textContent = text;
    if (name) made.className = name;
    return made;
  };
  const { step } = state.place;
  const [now, next] = [at(step), step < count() ? at(step + 1) : undefined];
  const words = now?.hop ? [...(now.hop.causes ?? []), now.hop.why] : [];
  page.body.replaceChildren(
    element('h1', `${t('noteTitle')} · ${t('stepOf', { step, count: count() })}`),
    element('p', now ? sentence(state.prefs.lang, now) : '', 'now'),
    ...words.map((line) => element('small', `${line} · `)),
    ...(next ? [element('h1', t('noteNext')), element('p', sentence(state.prefs.lang, next))] : []),
  );
}
