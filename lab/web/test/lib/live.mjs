// A lab that is up, and `podlab serve` before it. PODLAB names the program, as the test in Rust does.
import { execFileSync, spawn } from 'node:child_process';
import { chmodSync, copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';

let number = 0;

/** An ordinary user, and programs where such a one can reach them; nothing special where the tests are an ordinary user's anyway. */
function ordinary(podlab) {
  if (process.getuid() !== 0) return { podlab, as: {}, clear: () => undefined };
  const dir = mkdtempSync(join(tmpdir(), 'podlab-user-'));
  chmodSync(dir, 0o777);
  for (const name of ['podlab', 'podnet']) {
    copyFileSync(join(dirname(podlab), name), join(dir, name));
    chmodSync(join(dir, name), 0o755);
  }
  return { podlab: join(dir, 'podlab'), as: { uid: 1000, gid: 1000, cwd: dir }, clear: () => rmSync(dir, { recursive: true }) };
}

export async function live({ isOrdinary = false } = {}) {
  if (!process.env.PODLAB) throw new Error('PODLAB names no program: PODLAB=target/debug/podlab npm test');
  const name = `page-${process.pid}-${++number}`;
  const { podlab, as, clear } = isOrdinary ? ordinary(process.env.PODLAB) : { podlab: process.env.PODLAB, as: {}, clear: () => undefined };
  const run = (...args) => execFileSync(podlab, args, { ...as, encoding: 'utf8', maxBuffer: 1 << 26, stdio: ['ignore', 'pipe', 'pipe'] });
  run('up', '-q', '-d', '-n', name, '--nodes', '2', '--pods', '2');
  let server;
  const close = async () => {
    if (server && server.exitCode === null) {
      const ended = new Promise((done) => server.once('exit', done));
      server.kill();
      await ended;
    }
    try {
      run('down', '-q', '-n', name);
    } finally {
      clear();
    }
  };
  try {
    server = spawn(podlab, ['serve', '-n', name, '--port', '0'], { ...as, stdio: ['ignore', 'pipe', 'inherit'] });
    const url = await new Promise((done, fail) => {
      createInterface({ input: server.stdout }).once('line', done);
      server.once('exit', (code) => fail(new Error(`podlab serve ended with ${code}`)));
    });
    const { origin, searchParams } = new URL(url);
    return {
      url,
      origin,
      token: searchParams.get('token'),
      name,
      trace: (from, to) => JSON.parse(run('trace', '-n', name, '-o', 'json', from, to)),
      exported: (from, to) => {
        const file = join(as.cwd ?? tmpdir(), `${name}.html`);
        run('export', '-q', '-n', name, '--html', file, from, to);
        return file;
      },
      inspect: () => JSON.parse(run('inspect', '-n', name, '-o', 'json')),
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}
