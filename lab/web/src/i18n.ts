// The page's language: one table a language, and what a document says in several.

import { en, type Key } from './en';
import { ko } from './ko';

export type Lang = 'en' | 'ko';
export const TABLES: Record<Lang, Record<Key, string>> = { en, ko };

let current: Lang = 'en';

export function setLang(lang: Lang): void {
  current = lang;
}

export function lang(): Lang {
  return current;
}

/** The string of this language with its `{holes}` filled. */
export function t(key: Key, holes: Record<string, string | number> = {}): string {
  return TABLES[current][key].replace(/\{(\w+)\}/g, (_, name: string) => String(holes[name] ?? ''));
}

/** What a document says in this language, or else in English. */
export function said(words: string | Record<string, string> | undefined): string {
  if (words === undefined) return '';
  return typeof words === 'string' ? words : (words[current] ?? words['en'] ?? '');
}
