// Records the fixtures that podlab does not carry with it (`lab/walks`) but tests need: real walks, in labs that are up for as
// long as it takes. `PODLAB=target/debug/podlab node test/record.mjs`
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';

const podlab = process.env.PODLAB ?? 'podlab';
const lab = 'recording';
/** What a verb prints. A trace that finds its packet lost says so by its exit code too. */
const run = (verb, ...args) => {
  try {
    return execFileSync(podlab, [verb, '-n', lab, ...args], { encoding: 'utf8', maxBuffer: 1 << 26, stdio: ['ignore', 'pipe', 'pipe'] });
  } catch (error) {
    if (verb === 'trace' && error.stdout) return error.stdout;
    throw error;
  }
};

const walks = [
  { id: 'firewall-drop', titles: { en: 'A firewall drops it', ko: '방화벽이 폐기한 패킷' }, size: [3, 2], fault: ['fw-drop', 'node2'], trace: ['kubia-1', 'kubia-3', '--hooks'] },
  { id: 'same-node-ping', titles: { en: 'One node: a bridge is a switch', ko: '한 노드: 브리지는 스위치다' }, size: [3, 2], trace: ['kubia-1', 'kubia-2', '--proto', 'icmp'] },
  { id: 'sixty-pods', titles: { en: 'Sixty pods', ko: 'Pod 예순 개' }, size: [6, 10], trace: ['kubia-1', 'kubia-60'] },
];

for (const { id, titles, size: [nodes, pods], fault, trace } of walks) {
  run('up', '-q', '-d', '--nodes', String(nodes), '--pods', String(pods));
  try {
    if (fault) run('break', '-q', ...fault);
    const walked = JSON.parse(run('trace', '-o', 'json', ...trace));
    const state = JSON.parse(run('inspect', '-o', 'json'));
    const document = {
      schema: 'podlab.walk/1', id, title: titles.en, titles, mode: state.mode, lab: state, picture: run('graph', '-f', 'svg'), trace: walked, again: `podlab trace ${trace.join(' ')}`,
    };
    writeFileSync(new URL(`../fixtures/${id}.json`, import.meta.url), `${JSON.stringify(document)}\n`);
    process.stderr.write(`${id}: ${walked.verdict}\n`);
  } finally {
    run('down', '-q');
  }
}
