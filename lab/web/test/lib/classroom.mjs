// A live server's lesson, played: it fails its check until it is solved.
const list = (lang) => ({ schema: 'podlab.lessons/1', lang, current: null, lessons: [
  { id: 'same-node', number: 6, title: lang === 'ko' ? '같은 노드: 브리지는 스위치' : 'Same node: a bridge is a switch', minutes: 10, state: 'new', passed: false },
  { id: 'no-nat', number: 7, title: lang === 'ko' ? 'NAT 없이 노드 간 통신' : 'Across nodes without NAT', minutes: 12, state: 'new', passed: false },
] });
const lesson = (lang) => ({ schema: 'podlab.lesson/1', id: 'no-nat', number: 7, lang, title: list(lang).lessons[1].title, minutes: 12, lab: 'lesson', state: 'new', hints: 2, checks: ['reachability'], blocks: [
  { kind: 'goal', title: lang === 'ko' ? '목표' : 'Goal', text: lang === 'ko' ? 'Pod들은 노드를 넘어 **NAT 없이** 통신해야 합니다.' : 'Pods talk across nodes with **no NAT** between them.' },
  { kind: 'commands', title: lang === 'ko' ? '명령' : 'Commands', text: 'See one packet from `kubia-1`:\n\n```sh\npodlab trace kubia-1 kubia-3\n```\n\n- one\n- two' },
] });

/** What `serve` of the tests takes for such a server. */
export function classroom() {
  let solved = false;
  const lang = (request) => new URL(request.url, 'http://x').searchParams.get('lang') ?? 'en';
  const step = (verb, more) => () => ({ schema: 'podlab.step/1', verb, id: 'no-nat', number: 7, title: 'x', lab: 'lesson', state: 'broken', hint: null, ran: [], then: '', ...more });
  const at = '/api/lessons/no-nat';
  return {
    boot: { live: true, name: 'lesson' },
    extra: {
      '/api/lab': () => ({ schema: 'podlab.inspect/1', name: 'lesson', mode: 'routed', nodes: [], pods: [{ name: 'kubia-1', node: 'node1', addresses: [] }], faults: 0 }),
      '/api/faults': () => ({ schema: 'podlab.faults/1', faults: [{ name: 'route-missing', does: 'a node has no route', seen: 'nothing arrives', target: 'nodes', amount: null }] }),
      '/api/events': () => ({}),
      '/api/lessons': (request) => list(lang(request)),
      [at]: (request) => lesson(lang(request)),
      [`${at}/start`]: step('start', { then: 'go and look' }),
      [`${at}/hint`]: step('hint', { hint: { number: 1, of: 2, text: 'look at the routes' } }),
      [`${at}/solve`]: () => {
        solved = true;
        return step('solve', { ran: ['ip route add 10.244.2.0/24 via 192.0.2.12'] })();
      },
      [`${at}/check`]: () => ({ schema: 'podlab.check/1', id: 'no-nat', passed: solved, attempts: 1, checks: [{ title: 'reachability', passed: solved, expected: 'OK', observed: 'TIMEOUT' }] }),
    },
  };
}
