// The text of a lesson's block as elements: paragraphs, lists, fenced code with a button to copy, code and bold within lines.
// What else Markdown can do, lessons do not use.

import { h, type Child } from './dom';
import { copyable } from './walks';

function inline(text: string): Child[] {
  return text.split(/(`[^`]+`|\*\*[^*]+\*\*)/).map((part) => {
    if (part.startsWith('`')) return h('code', {}, part.slice(1, -1));
    return part.startsWith('**') ? h('b', {}, part.slice(2, -2)) : part;
  });
}

export function markdown(text: string): HTMLElement[] {
  const made: HTMLElement[] = [];
  const lines = text.split('\n');
  let at = 0;
  while (at < lines.length) {
    const line = lines[at]!;
    if (line.trim() === '') at++;
    else if (line.startsWith('```')) {
      const end = lines.findIndex((other, i) => i > at && other.startsWith('```'));
      const code = lines.slice(at + 1, end < 0 ? undefined : end).join('\n');
      made.push(/^```(sh|bash|console)/.test(line) ? copyable(code) : h('pre', { tabindex: '0', lang: 'en' }, code));
      at = end < 0 ? lines.length : end + 1;
    } else if (/^(?:[-*]|\d+\.) /.test(line)) {
      const items: string[] = [];
      while (at < lines.length && lines[at]!.trim() !== '' && !lines[at]!.startsWith('```')) {
        if (/^(?:[-*]|\d+\.) /.test(lines[at]!)) items.push(lines[at]!.replace(/^(?:[-*]|\d+\.) /, ''));
        else items[items.length - 1] += ` ${lines[at]!.trim()}`;
        at++;
      }
      made.push(h(/^\d/.test(line) ? 'ol' : 'ul', {}, items.map((item) => h('li', {}, inline(item)))));
    } else if (/^#+ /.test(line)) {
      made.push(h('h4', {}, inline(line.replace(/^#+ /, ''))));
      at++;
    } else {
      const start = at;
      while (at < lines.length && lines[at]!.trim() !== '' && !/^(```|[-*] |\d+\. |#+ )/.test(lines[at]!)) at++;
      if (at === start) at++;
      made.push(h('p', {}, inline(lines.slice(start, at).join(' '))));
    }
  }
  return made;
}
