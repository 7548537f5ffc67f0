// The documents that the page reads: `podlab.walk/1` and what it holds, as `podlab schema` describes them.

export type Protocol = 'tcp' | 'udp' | 'icmp';
export type Way = 'request' | 'reply';
export type Direction = 'in' | 'out';

export interface Outer {
  vni: number;
  source: string;
  target: string;
  /** Bytes around the frame inside. */
  overhead: number;
}

export type Field = 'OUTER' | 'TTL' | 'MAC' | 'SRC' | 'DST' | 'SPORT' | 'DPORT' | 'ID' | 'PAYLOAD';

export interface Change {
  field: Field;
  from: string;
  to: string;
}

export interface HookStep {
  space: string;
  hook: string;
  table: string;
  chain: string;
  handle?: number;
  rule?: string;
  verdict: string;
}

export interface Hop {
  number: number;
  space: string;
  role: 'pod' | 'node' | 'fabric' | 'outside';
  interface: string;
  direction: Direction;
  stamp_ns: number;
  /** Nanoseconds since the first hop of its packet. */
  after_ns: number;
  source: string;
  target: string;
  ttl: number;
  id?: number;
  source_mac: string;
  target_mac: string;
  outer?: Outer;
  changed: Change[];
  why: string;
  causes?: string[];
  hooks?: HookStep[];
}

export interface Lost {
  packet: string;
  at?: string;
  kind: string;
  reason: string;
  /** The kernel's own word. */
  kernel?: string;
}

export interface Trace {
  schema: string;
  lab: string;
  source: string;
  target: string;
  address: string;
  protocol: Protocol;
  outcome: { word: string; detail?: string; host?: string; remote?: string; local?: string; micros: number };
  ruling: 'PASS' | 'FAIL' | 'ERROR';
  verdict: string;
  walks: { packet: string; way: Way; hops: Hop[] }[];
  arp: { at: string; direction: Direction; stamp_ns: number; text: string }[];
  errors: string[];
  encrypted: { looks: string; packets: number }[];
  drops: number;
  lost?: Lost;
}

export interface Lab {
  schema: string;
  name: string;
  mode: string;
  outside?: string;
  nodes: { name: string; address: string; podCIDR: string; rack: string | null }[];
  pods: { name: string; node: string; addresses: string[] }[];
  faults?: number;
}

export interface WalkDocument {
  schema: 'podlab.walk/1';
  id?: string;
  title: string;
  /** The title by language. */
  titles?: Record<string, string>;
  mode: string;
  lab: Lab;
  picture: string;
  trace: Trace;
  pcapng?: string;
  again?: string;
}

export interface Titled {
  id: string;
  title: string | Record<string, string>;
}

/** What the server or the export wrote into the page. */
export interface Boot {
  live?: boolean;
  file?: boolean;
  name?: string;
  mode?: string;
  version?: string;
  walks?: Titled[];
  walk?: WalkDocument;
}
