// Records the fixtures: real walks in labs that are up for as long as it takes. Root or a user namespace, and podlab:
//   PODLAB=target/debug/podlab node test/record.mjs
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const podlab = process.env.PODLAB ?? 'podlab';
const fixtures = new URL('../fixtures/', import.meta.url).pathname;
const scratch = mkdtempSync(join(tmpdir(), 'podlab-record-'));
const run = (...args) => execFileSync(podlab, args, { encoding: 'utf8', maxBuffer: 1 << 26, stdio: ['ignore', 'pipe', 'pipe'] });
/** A trace that finds a fault or no way says so by its exit code too. */
const told = (...args) => {
  try {
    return run(...args);
  } catch (error) {
    if (error.stdout) return error.stdout;
    throw error;
  }
};

const walks = [
  { id: 'routed-cross-node', en: 'Across nodes without NAT', ko: 'NAT 없이 노드 간 통신', up: ['--mode', 'routed'], trace: ['kubia-1', 'kubia-3', '--hooks'], packets: true },
  { id: 'vxlan-cross-node', en: 'The same trip in a tunnel', ko: '오버레이: 터널 속의 같은 여행', up: ['--mode', 'vxlan'], trace: ['kubia-1', 'kubia-3'] },
  { id: 'masquerade-cross-node', en: 'Across nodes, masqueraded', ko: '마스커레이드가 낀 노드 간 통신', up: ['--ip-masq'], trace: ['kubia-1', 'kubia-3'] },
  { id: 'service', en: 'A cluster IP is nowhere', ko: '클러스터 IP는 어디에도 없다', up: [], before: [['label', 'pod', 'kubia-3', 'app=web', '--overwrite'], ['expose', 'pod', 'kubia-3', '--type=ClusterIP', '--name', 'web', '--port=80', '--target-port=8080']], trace: ['kubia-1', '10.96.0.11:80'] },
  { id: 'firewall-drop', en: 'A firewall drops it', ko: '방화벽이 폐기한 패킷', up: [], fault: ['fw-drop', 'node2'], trace: ['kubia-1', 'kubia-3', '--hooks'] },
  { id: 'same-node-ping', en: 'One node: a bridge is a switch', ko: '한 노드: 브리지는 스위치다', up: [], trace: ['kubia-1', 'kubia-2', '--proto', 'icmp'] },
];

try {
  for (const walk of walks) {
    const name = 'recording';
    run('up', '-q', '-d', '-n', name, '--nodes', '3', '--pods', '2', ...walk.up);
    try {
      for (const words of walk.before ?? []) run('kubectl', '--context', name, ...words);
      if (walk.fault) run('break', '-q', '-n', name, ...walk.fault);
      const file = join(scratch, 'packets.pcapng');
      const trace = JSON.parse(told('trace', '-n', name, '-o', 'json', '-w', file, ...walk.trace));
      const lab = JSON.parse(run('inspect', '-n', name, '-o', 'json'));
      const picture = run('graph', '-n', name, '-f', 'svg');
      const document = {
        schema: 'podlab.walk/1',
        id: walk.id,
        title: walk.en,
        titles: { en: walk.en, ko: walk.ko },
        mode: lab.mode,
        lab,
        picture,
        trace,
        ...(walk.packets && { pcapng: readFileSync(file).toString('base64') }),
        again: `podlab trace ${walk.trace.join(' ')}`,
      };
      writeFileSync(join(fixtures, `${walk.id}.json`), `${JSON.stringify(document)}\n`);
      process.stderr.write(`${walk.id}: ${trace.verdict}\n`);
    } finally {
      run('down', '-q', '-n', name);
    }
  }
  run('up', '-q', '-d', '-n', 'recording', '--nodes', '6', '--pods', '10');
  try {
    const lab = JSON.parse(run('inspect', '-n', 'recording', '-o', 'json'));
    const trace = JSON.parse(run('trace', '-n', 'recording', '-o', 'json', 'kubia-1', 'kubia-60'));
    const picture = run('graph', '-n', 'recording', '-f', 'svg');
    const document = { schema: 'podlab.walk/1', id: 'sixty-pods', title: 'Sixty pods', mode: lab.mode, lab, picture, trace, again: 'podlab trace kubia-1 kubia-60' };
    writeFileSync(join(fixtures, 'sixty-pods.json'), `${JSON.stringify(document)}\n`);
  } finally {
    run('down', '-q', '-n', 'recording');
  }
} finally {
  rmSync(scratch, { recursive: true });
}
