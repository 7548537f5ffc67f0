// Predict, then see: the questions about the next step, and how many answers were right. Pure.

import { split, type Sighting } from './model';

export type Subject = 'interface' | 'source' | 'ttl';

export interface Question {
  subject: Subject;
  right: string;
  /** With the right one, in an order that does not tell which. */
  choices: string[];
}

export interface Score {
  right: number;
  asked: number;
}

const MOST = 4;

/** What can be asked about `next`, which follows `now` in `shown`. Nothing where it is another packet or ARP. */
export function questions(shown: Sighting[], now: Sighting, next: Sighting): Question[] {
  if (!now.hop || !next.hop || next.key !== now.key) return [];
  const source = (row: Sighting): string => (row.hop ? split(row.hop.source).address : '');
  const hops = shown.filter((row) => row.hop);
  const ttl = now.hop.ttl;
  return [
    ask('interface', next.at, hops.filter((row) => row.at !== now.at).sort(nearest(next)).map((row) => row.at)),
    ask('source', source(next), [source(now), ...hops.map(source), ...hops.map((row) => split(row.hop!.target).address)]),
    ask('ttl', String(next.hop.ttl), [String(ttl), String(ttl - 1), String(ttl - 2), String(ttl + 1)]),
  ].filter((question) => question.choices.length > 1);
}

const nearest = (to: Sighting) => (a: Sighting, b: Sighting) => Math.abs(a.index - to.index) - Math.abs(b.index - to.index);

function ask(subject: Subject, right: string, others: string[]): Question {
  const choices = [...new Set([right, ...others])].slice(0, MOST);
  return { subject, right, choices: choices.sort((a, b) => a.localeCompare(b, 'en', { numeric: true })) };
}

/** The score with these answers added. What was not answered counts as asked. */
export function marked(score: Score, asked: Question[], answers: Partial<Record<Subject, string>>): Score {
  const right = asked.filter((question) => answers[question.subject] === question.right).length;
  return { right: score.right + right, asked: score.asked + asked.length };
}
