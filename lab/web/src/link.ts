// Deep links: `#lesson=7&walk=routed-cross-node&step=3`. What is not in a link is as usual. Pure.

export interface Place {
  lesson: string;
  walk: string;
  /** The walk beside it, in compare mode. */
  with: string;
  /** From 1. */
  step: number;
  /** The only packet shown. */
  pkt: string;
}

export const NOWHERE: Place = { lesson: '', walk: '', with: '', step: 1, pkt: '' };
const NAME = /^[A-Za-z0-9._:-]{1,80}$/;

/** Reads a link's part behind `#`. What is no name or no step is left out. */
export function readLink(hash: string): Place {
  const given = new URLSearchParams(hash.replace(/^#/, ''));
  const name = (key: string): string => {
    const value = given.get(key) ?? '';
    return NAME.test(value) ? value : '';
  };
  const step = Number(given.get('step') ?? '1');
  return {
    lesson: name('lesson'),
    walk: name('walk'),
    with: name('with'),
    step: Number.isInteger(step) && step > 0 ? step : 1,
    pkt: name('pkt'),
  };
}

/** Writes a link, shortest form: nothing that is as usual but the step. */
export function writeLink(place: Place): string {
  const parts: string[] = [];
  if (place.lesson) parts.push(`lesson=${place.lesson}`);
  if (place.walk) parts.push(`walk=${place.walk}`);
  if (place.with) parts.push(`with=${place.with}`);
  if (place.pkt) parts.push(`pkt=${place.pkt}`);
  parts.push(`step=${place.step}`);
  return `#${parts.join('&')}`;
}
