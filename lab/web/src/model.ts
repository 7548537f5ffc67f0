// A walk as rows: every sighting of the trace in the order of time, and which of them a filter shows. Pure.

import type { Change, Direction, Hop, Lost, Trace, Way } from './types';

export type Kind = 'arp' | 'tcp' | 'udp' | 'icmp';

/** One sighting: one step of the walk, one row of the table. */
export interface Sighting {
  /** Which one of all, from 0. */
  index: number;
  kind: Kind;
  /** Packed into another packet here. */
  overlay: boolean;
  /** What names its packet in links: the IP id in hex, or its place among the packets. */
  key: string;
  /** The packet in words: `SYN`, or what ARP says. */
  packet: string;
  way: Way;
  /** `node1/eth0`, as the picture names it. */
  at: string;
  space: string;
  iface: string;
  direction: Direction;
  /** Nanoseconds since the first packet set out. */
  time: number;
  hop?: Hop;
  changed: Change[];
  /** The same packet, one sighting earlier. */
  before?: Sighting;
  /** Why it was not seen again. */
  lost?: Lost;
}

export interface Filter {
  arp: boolean;
  tcp: boolean;
  udp: boolean;
  icmp: boolean;
  /** Also where packets are packed into others. */
  overlay: boolean;
  replies: boolean;
  /** The key of the only packet shown, or empty. */
  only: string;
}

export const EVERYTHING: Filter = { arp: true, tcp: true, udp: true, icmp: true, overlay: true, replies: true, only: '' };
export const USUAL: Filter = { ...EVERYTHING, arp: false };

/** All sightings of a trace, oldest first. */
export function sightings(trace: Trace): Sighting[] {
  const keys = new Set<string>();
  const rows: Sighting[] = [];
  // Time begins with the first packet; what ARP asked for it came before.
  const zero = trace.walks[0]?.hops[0]?.stamp_ns ?? trace.arp[0]?.stamp_ns ?? 0;
  for (const [at, walk] of trace.walks.entries()) {
    const id = walk.hops[0]?.id;
    let key = id === undefined ? `p${at + 1}` : id.toString(16).padStart(4, '0');
    if (keys.has(key)) key = `${key}-${at + 1}`;
    keys.add(key);
    // A stamp has more digits than a number here keeps; within one packet the differences are exact.
    const start = (walk.hops[0]?.stamp_ns ?? 0) - zero;
    let before: Sighting | undefined;
    for (const hop of walk.hops) {
      const row: Sighting = {
        index: 0,
        kind: trace.protocol,
        overlay: hop.outer !== undefined,
        key,
        packet: walk.packet,
        way: walk.way,
        at: `${hop.space}/${hop.interface}`,
        space: hop.space,
        iface: hop.interface,
        direction: hop.direction,
        time: start + hop.after_ns,
        hop,
        changed: hop.changed,
      };
      if (before) row.before = before;
      before = row;
      rows.push(row);
    }
    if (before && trace.lost?.packet === walk.packet && walk.way === 'request') {
      const { at: place } = trace.lost;
      if (place === undefined || place === `${before.at} ${before.direction}`) before.lost = trace.lost;
    }
  }
  rows.push(...questions(trace, zero));
  rows.sort((a, b) => a.time - b.time);
  rows.forEach((row, index) => {
    row.index = index;
  });
  return rows;
}

/** What ARP asked and answered, each with the place where it was seen before. */
function questions(trace: Trace, zero: number): Sighting[] {
  const last = new Map<string, Sighting>();
  return trace.arp.map((arp) => {
    const slash = arp.at.indexOf('/');
    const row: Sighting = {
      index: 0,
      kind: 'arp',
      overlay: false,
      key: 'arp',
      packet: arp.text,
      way: arp.text.startsWith('who has') ? 'request' : 'reply',
      at: arp.at,
      space: arp.at.slice(0, slash),
      iface: arp.at.slice(slash + 1),
      direction: arp.direction,
      time: arp.stamp_ns - zero,
      changed: [],
    };
    const before = last.get(arp.text);
    if (before) row.before = before;
    last.set(arp.text, row);
    return row;
  });
}

/** Those that a filter shows. Never none if there is one at all: a filter that hides all is as if it were the usual. */
export function visible(rows: Sighting[], filter: Filter): Sighting[] {
  const shown = rows.filter((row) => isShown(row, filter));
  if (shown.length > 0) return shown;
  const usual = rows.filter((row) => isShown(row, USUAL));
  return usual.length > 0 ? usual : rows;
}

function isShown(row: Sighting, filter: Filter): boolean {
  if (filter.only !== '') return row.key === filter.only;
  return filter[row.kind] && (filter.overlay || !row.overlay) && (filter.replies || row.way === 'request');
}

/** Where to go on when what is shown has changed: the same sighting, or the next one after it, or the last. Steps count from 1. */
export function keepStep(shown: Sighting[], index: number): number {
  const at = shown.findIndex((row) => row.index >= index);
  return at < 0 ? shown.length : at + 1;
}

/** A step within what is there. */
export function clampStep(step: number, count: number): number {
  return Number.isFinite(step) ? Math.min(Math.max(1, Math.trunc(step)), Math.max(1, count)) : 1;
}

/** The packets of a walk, each once, in the order of its rows. */
export function packets(rows: Sighting[]): { key: string; packet: string; way: Way }[] {
  const seen = new Map<string, { key: string; packet: string; way: Way }>();
  for (const { key, packet, way, kind } of rows) {
    if (kind !== 'arp' && !seen.has(key)) seen.set(key, { key, packet, way });
  }
  return [...seen.values()];
}

/** `10.244.1.2:8080` or `[fd00::1]:80` as address and port. */
export function split(socket: string): { address: string; port: string } {
  const colon = socket.lastIndexOf(':');
  return { address: socket.slice(0, colon).replace(/^\[|\]$/g, ''), port: socket.slice(colon + 1) };
}

/** Microseconds, as people read them. */
export function micros(ns: number): string {
  return `${(ns / 1000).toFixed(1).replace('-', '−')} µs`;
}
