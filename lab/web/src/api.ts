// The server behind the page, if there is one. Only this origin is asked, with the token that the address brought along.

import { state } from './store';
import type { WalkDocument } from './types';

let token = '';

/** Takes the token from the address into this tab, where the page finds it when it is loaded anew. */
export function takeToken(): void {
  const here = new URL(location.href);
  const told = here.searchParams.get('token');
  token = told ?? kept(() => sessionStorage.getItem('token')) ?? '';
  if (told === null || !hasServer()) return;
  kept(() => sessionStorage.setItem('token', told));
  here.searchParams.delete('token');
  history.replaceState(history.state, '', here);
}

/** What a browser that keeps nothing refuses is nothing. */
function kept<T>(ask: () => T): T | undefined {
  try {
    return ask();
  } catch {
    return undefined;
  }
}

/** Whether anything may be asked at all: an exported file asks nothing. */
export function hasServer(): boolean {
  return state.boot.file !== true && location.protocol.startsWith('http') && state.boot.walks !== undefined;
}

async function answer(path: string, body?: unknown): Promise<Response> {
  const made = await fetch(path, {
    headers: { 'X-Podlab-Token': token, ...(body !== undefined && { 'Content-Type': 'application/json' }) },
    ...(body !== undefined && { method: 'POST', body: JSON.stringify(body) }),
    cache: 'no-store',
  });
  if (made.ok) return made;
  const text = await made.text();
  let words = text || made.statusText;
  try {
    words = (JSON.parse(text) as { error?: string }).error ?? words;
  } catch {
    // No JSON: the words as they are.
  }
  throw new Error(words);
}

export async function get<T>(path: string): Promise<T> {
  return (await answer(path)).json() as Promise<T>;
}

export async function getText(path: string): Promise<string> {
  return (await answer(path)).text();
}

export async function getBytes(path: string): Promise<ArrayBuffer> {
  return (await answer(path)).arrayBuffer();
}

export async function post<T>(path: string, body: unknown = {}): Promise<T> {
  return (await answer(path, body)).json() as Promise<T>;
}

export const recorded = (id: string): Promise<WalkDocument> => get(`/api/walks/${encodeURIComponent(id)}`);

/** Listens to what happens in the lab. */
export function listen(heard: (event: Record<string, unknown>) => void): EventSource {
  const source = new EventSource(`/api/events?token=${encodeURIComponent(token)}`);
  source.addEventListener('message', (message: MessageEvent<string>) => {
    try {
      heard(JSON.parse(message.data) as Record<string, unknown>);
    } catch {
      // A line that is no event is passed over.
    }
  });
  return source;
}
