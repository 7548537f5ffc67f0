// Two walks with one step control: which sightings of them stand side by side. Pure.

import type { Sighting } from './model';

export interface Pair {
  a?: Sighting;
  b?: Sighting;
}

/** What two sightings of different clusters have in common if they are the same step. Names of veths are made by chance. */
function likeness(row: Sighting): string {
  const iface = row.iface.replace(/^(veth|cali|lxc).*/, '$1');
  return `${row.kind === 'arp' ? 'arp' : `${row.way} ${row.packet}`}|${row.space}/${iface}|${row.direction}`;
}

/** The longest common order of both; a step that only one of them has stands alone. */
export function align(a: Sighting[], b: Sighting[]): Pair[] {
  const ka = a.map(likeness);
  const kb = b.map(likeness);
  const width = b.length + 1;
  const best = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      best[i * width + j] =
        ka[i] === kb[j]
          ? best[(i + 1) * width + j + 1]! + 1
          : Math.max(best[(i + 1) * width + j]!, best[i * width + j + 1]!);
    }
  }
  const pairs: Pair[] = [];
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && ka[i] === kb[j]) pairs.push({ a: a[i++]!, b: b[j++]! });
    else if (j >= b.length || (i < a.length && best[(i + 1) * width + j]! >= best[i * width + j + 1]!)) pairs.push({ a: a[i++]! });
    else pairs.push({ b: b[j++]! });
  }
  return pairs;
}

/** The sighting of a side at a step, or the last one before it. */
export function latest(pairs: Pair[], step: number, side: 'a' | 'b'): Sighting | undefined {
  for (let at = Math.min(step, pairs.length) - 1; at >= 0; at--) {
    const row = pairs[at]?.[side];
    if (row) return row;
  }
  return undefined;
}
