// The sentence of a step, in either language, from the data of its sighting. Pure.

import type { Lang } from './i18n';
import { split, type Sighting } from './model';
import type { Change, Lost } from './types';

type Say = (...parts: string[]) => string;

/** What the trace's reasons say, most special first: a pattern, and a sentence in each language. */
const REASONS: [RegExp, Record<Lang, Say>][] = [
  [/^in (.+?): (.+)$/, {
    en: (outer, rest) => `packed in ${outer}; ${reason('en', rest!)}`,
    ko: (outer, rest) => `${outer} 안에 캡슐화됨, ${reason('ko', rest!)}`,
  }],
  [/^unpacked by (\S+)$/, { en: (by) => `${by} takes the packet out of its tunnel`, ko: (by) => `터널에서 꺼냄(${by})` }],
  [/^its own address: nobody unpacks it$/, {
    en: () => 'the outer address is its own, but nobody unpacks it',
    ko: () => '바깥 주소가 자신의 것이지만 아무도 꺼내지 않음',
  }],
  [/^its own address: delivered$/, { en: () => 'the destination is its own address: delivered', ko: () => '자신의 주소이므로 전달됨' }],
  [/^its own address$/, { en: () => 'the destination is its own address', ko: () => '자신의 주소' }],
  [/^not its address: forwarded$/, {
    en: () => 'the destination is not its own address: it forwards the packet',
    ko: () => '자신의 주소가 아니므로 전달(포워딩)함',
  }],
  [/^for another MAC: ignored$/, { en: () => 'the frame is for another MAC address: ignored', ko: () => '다른 MAC 주소로 가는 프레임이므로 무시함' }],
  [/^bridge (\S+), to host$/, {
    en: (bridge) => `bridge ${bridge} gives the frame to the host, whose MAC address it is for`,
    ko: (bridge) => `브리지 ${bridge}: 호스트의 MAC 주소이므로 호스트에 넘김`,
  }],
  [/^bridge (\S+), to (\S+)$/, {
    en: (bridge, port) => `bridge ${bridge} switches the frame to port ${port}`,
    ko: (bridge, port) => `브리지 ${bridge}: 포트 ${port}(으)로 보냄`,
  }],
  [/^bridge (\S+), no further$/, { en: (bridge) => `bridge ${bridge} did not pass it on`, ko: (bridge) => `브리지 ${bridge}에서 더 가지 않음` }],
  [/^bridge (\S+)$/, { en: (bridge) => `bridge ${bridge} sends the frame out here`, ko: (bridge) => `브리지 ${bridge}에서 이 포트로 나감` }],
  [/^no further, though there is (.+)$/, {
    en: (words) => `not seen to go on, though there is ${reason('en', words!)}`,
    ko: (words) => `더 가는 것이 보이지 않음(경로는 있음: ${reason('ko', words!)})`,
  }],
  [/^no route to (\S+): dropped$/, { en: (to) => `no route to ${to}: dropped`, ko: (to) => `${to} 주소로 가는 경로가 없어 폐기됨` }],
  [/^no route to (\S+)( in the main table)?$/, { en: (to) => `no route to ${to} in the main table`, ko: (to) => `주 라우팅 테이블에 ${to} 주소로 가는 경로가 없음` }],
  [/^default via (\S+)(?: on (\S+))?(.*)$/, {
    en: (via, on, more) => `default route via ${via}${on ? ` on ${on}` : ''}${more}`,
    ko: (via, on, more) => `기본 게이트웨이 ${via}${on ? ` (${on})` : ''}${more}`,
  }],
  [/^route (\S+) via (\S+)(?: on (\S+))?(.*)$/, {
    en: (net, via, on, more) => `route ${net} via ${via}${on ? ` on ${on}` : ''}${more}`,
    ko: (net, via, on, more) => `경로 ${net}, 다음 홉 ${via}${on ? ` (${on})` : ''}${more}`,
  }],
  [/^route (\S+) on (\S+)(.*)$/, {
    en: (net, on, more) => `route ${net}, directly on ${on}${more}`,
    ko: (net, on, more) => `경로 ${net}, ${on}에 직접 연결${more}`,
  }],
];

/** A reason of the trace as a sentence. One that is not known stays as it is. */
export function reason(lang: Lang, why: string): string {
  for (const [pattern, say] of REASONS) {
    const found = pattern.exec(why);
    if (found) return say[lang](...found.slice(1).map((part) => part ?? ''));
  }
  return why;
}

/** Whether a reason has a sentence of its own. */
export function isKnown(why: string): boolean {
  return REASONS.some(([pattern]) => pattern.test(why));
}

const CHANGES: Record<Change['field'], Record<Lang, Say>> = {
  TTL: { en: (a, b) => `TTL ${a}→${b}`, ko: (a, b) => `TTL ${a}→${b}` },
  MAC: { en: () => 'new MAC addresses', ko: () => '새 MAC 주소' },
  SRC: { en: (a, b) => `source ${a} rewritten to ${b} (NAT)`, ko: (a, b) => `출발지 ${a} → ${b} 주소 변환(NAT)` },
  DST: { en: (a, b) => `destination ${a} rewritten to ${b} (NAT)`, ko: (a, b) => `목적지 ${a} → ${b} 주소 변환(NAT)` },
  SPORT: { en: (a, b) => `source port ${a}→${b}`, ko: (a, b) => `출발지 포트 ${a}→${b}` },
  DPORT: { en: (a, b) => `destination port ${a}→${b}`, ko: (a, b) => `목적지 포트 ${a}→${b}` },
  ID: { en: (a, b) => `IP id ${a}→${b}`, ko: (a, b) => `IP id ${a}→${b}` },
  PAYLOAD: { en: () => 'another payload', ko: () => '다른 내용' },
  OUTER: {
    en: (_, b) => (b === 'nothing' ? 'unpacked' : `packed into ${b}`),
    ko: (_, b) => (b === 'nothing' ? '캡슐에서 꺼냄' : `${b}에 캡슐화`),
  },
};

export function changeWords(lang: Lang, change: Change): string {
  return CHANGES[change.field][lang](change.from, change.to);
}

const LOST: Record<string, Record<Lang, string>> = {
  firewall: { en: 'a firewall rule dropped it', ko: '방화벽 규칙이 폐기함' },
  'no-route': { en: 'there is no route', ko: '경로가 없음' },
  'no-forwarding': { en: 'the node does not forward', ko: '노드가 포워딩하지 않음' },
  'reverse-path': { en: 'the reverse path filter took it', ko: '역경로 필터(rp_filter)가 폐기함' },
  neighbour: { en: 'the next hop does not answer ARP', ko: '다음 홉이 ARP에 답하지 않음' },
  ttl: { en: 'its TTL came to an end', ko: 'TTL이 다함' },
  'other-mac': { en: 'the frame is for another MAC address', ko: '다른 MAC 주소로 가는 프레임' },
  'link-down': { en: 'the link is down', ko: '링크가 내려가 있음' },
  bridge: { en: 'the bridge did not pass it on', ko: '브리지가 넘기지 않음' },
  'nobody-listens': { en: 'nobody listens there', ko: '그곳에서 아무도 듣지 않음' },
  'too-big': { en: 'it is larger than the link takes', ko: '링크의 MTU보다 큼' },
  unknown: { en: 'it was not seen again', ko: '그 뒤로 보이지 않음' },
};

export function lostWords(lang: Lang, lost: Lost): string {
  return LOST[lost.kind]?.[lang] ?? lost.kind;
}

/** The whole sentence: where, why, what has changed, and its end if it has one. */
export function sentence(lang: Lang, row: Sighting): string {
  if (!row.hop) return arp(lang, row);
  const { hop } = row;
  const looked = /^(route|default|no route)/.test(hop.why) && hop.direction === 'out';
  const target = split(hop.target).address;
  let text = looked
    ? lang === 'en'
      ? `${row.space} looked up ${target}: ${reason(lang, hop.why)}`
      : `${row.space}에서 ${target}의 경로를 찾음: ${reason(lang, hop.why)}`
    : `${row.at}: ${reason(lang, hop.why)}`;
  if (hop.changed.length > 0) text += `; ${hop.changed.map((change) => changeWords(lang, change)).join('; ')}`;
  if (row.lost) text += lang === 'en' ? `. ✕ Dropped: ${lostWords(lang, row.lost)} (${row.lost.reason})` : `. ✕ 폐기: ${lostWords(lang, row.lost)}`;
  return `${text}.`;
}

function arp(lang: Lang, row: Sighting): string {
  const asked = /^who has (\S+), asks (\S+)$/.exec(row.packet);
  if (asked) {
    return lang === 'en'
      ? `${row.at}: ARP asks everybody on the link who has ${asked[1]}; the answer goes to ${asked[2]}.`
      : `${row.at}: ARP가 링크의 모두에게 ${asked[1]}의 주인을 물음. 답은 ${asked[2]} 앞으로.`;
  }
  const told = /^(\S+) is at (\S+)$/.exec(row.packet);
  if (!told) return `${row.at}: ${row.packet}`;
  return lang === 'en' ? `${row.at}: ARP answers that ${told[1]} is at ${told[2]}.` : `${row.at}: ARP 응답, ${told[1]}의 MAC 주소는 ${told[2]}.`;
}
