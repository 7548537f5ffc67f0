// The headers of a packet at one sighting as layers of fields, outermost first, and which fields are new. Pure.

import { split, type Sighting } from './model';
import type { Field } from './types';

export interface HeaderField {
  /** Which one, the same before and after: `ip.ttl`. */
  id: string;
  label: string;
  value: string;
  changed: boolean;
}

export interface Layer {
  id: 'outer-ip' | 'outer-udp' | 'vxlan' | 'eth' | 'arp' | 'ip' | 'tcp' | 'udp' | 'icmp';
  name: string;
  fields: HeaderField[];
}

/** The layers at a sighting. `other` is the sighting to compare with; without one nothing counts as changed. */
export function layers(row: Sighting, other?: Sighting): Layer[] {
  const made = plain(row);
  if (!other) return made;
  const values = new Map(plain(other).flatMap((layer) => layer.fields.map((field) => [field.id, field.value])));
  for (const layer of made) {
    for (const field of layer.fields) field.changed = values.get(field.id) !== field.value;
  }
  return made;
}

function plain(row: Sighting): Layer[] {
  const { hop } = row;
  if (!hop) return [layer('arp', 'ARP', [['text', row.way === 'request' ? 'question' : 'answer', row.packet]])];
  const source = split(hop.source);
  const target = split(hop.target);
  const all: Layer[] = [];
  if (hop.outer) {
    const from = split(hop.outer.source);
    const to = split(hop.outer.target);
    all.push(
      layer('outer-ip', 'outer IP', [['src', 'src', from.address], ['dst', 'dst', to.address]]),
      layer('outer-udp', 'outer UDP', [['sport', 'sport', from.port], ['dport', 'dport', to.port]]),
      layer('vxlan', 'VXLAN', [['vni', 'VNI', String(hop.outer.vni)], ['overhead', 'overhead', `+${hop.outer.overhead}`]]),
    );
  }
  all.push(layer('eth', 'Ethernet', [['src', 'src', hop.source_mac], ['dst', 'dst', hop.target_mac]]));
  const ip: [string, string, string][] = [
    ['src', 'src', source.address],
    ['dst', 'dst', target.address],
    ['ttl', 'TTL', String(hop.ttl)],
  ];
  if (hop.id !== undefined) ip.push(['id', 'id', `0x${hop.id.toString(16).padStart(4, '0')}`]);
  all.push(layer('ip', 'IP', ip));
  if (row.kind === 'icmp') {
    all.push(layer('icmp', 'ICMP', [['id', 'id', row.way === 'request' ? source.port : target.port], ['what', 'what', row.packet]]));
  } else {
    const id = row.kind === 'udp' ? 'udp' : 'tcp';
    all.push(
      layer(id, id.toUpperCase(), [
        ['sport', 'sport', source.port],
        ['dport', 'dport', target.port],
        ['what', 'what', row.packet],
      ]),
    );
  }
  return all;
}

function layer(id: Layer['id'], name: string, fields: [string, string, string][]): Layer {
  return { id, name, fields: fields.map(([key, label, value]) => ({ id: `${id}.${key}`, label, value, changed: false })) };
}

/** The fields of two walks' sightings that are not the same, by the words of the trace. */
export function differences(a: Sighting, b: Sighting): Field[] {
  if (!a.hop || !b.hop) return a.packet === b.packet ? [] : ['PAYLOAD'];
  const [sa, sb, ta, tb] = [split(a.hop.source), split(b.hop.source), split(a.hop.target), split(b.hop.target)];
  const fields: [Field, boolean][] = [
    ['OUTER', (a.hop.outer === undefined) !== (b.hop.outer === undefined)],
    ['SRC', sa.address !== sb.address],
    ['DST', ta.address !== tb.address],
    ['DPORT', ta.port !== tb.port],
    ['TTL', a.hop.ttl !== b.hop.ttl],
  ];
  return fields.filter(([, differs]) => differs).map(([field]) => field);
}
