// The committed file is what the sources make, and needs nothing from elsewhere.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from 'vite';

export const needsBrowser = false;
const web = new URL('../../', import.meta.url).pathname;
const committed = () => readFileSync(`${web}dist/index.html`, 'utf8');

export default [
  ['types are strict and right', () => {
    execFileSync(process.execPath, [`${web}node_modules/typescript/bin/tsc`, '--noEmit', '-p', web], { stdio: 'pipe' });
  }],
  ['a build anew gives the committed bytes', async () => {
    const outDir = mkdtempSync(join(tmpdir(), 'podlab-page-'));
    try {
      await build({ root: web, configFile: `${web}vite.config.js`, logLevel: 'error', build: { outDir, emptyOutDir: true } });
      assert.ok(readFileSync(join(outDir, 'index.html'), 'utf8') === committed(), 'dist/index.html is not what src makes: run `npm run build` in lab/web and commit it');
    } finally {
      rmSync(outDir, { recursive: true });
    }
  }],
  ['the file has the places that the server fills, each once and before the script', () => {
    const html = committed();
    const script = html.indexOf('<script type="module"');
    for (const place of ['<script type="application/json" id="podlab-boot">{}</script>', '<main id="app"><!--podlab-table--></main>']) {
      const at = html.indexOf(place);
      assert.ok(at > 0 && at < script, place);
      assert.equal(html.indexOf(place, at + 1), -1, place);
    }
    assert.equal(html.match(/<script type="module"/g).length, 1);
    assert.equal(html.match(/<style[\s>]/g).length, 1);
  }],
  ['nothing in it leads elsewhere, and no style is set in markup', () => {
    const html = committed();
    const addresses = [...html.matchAll(/https?:\/\/[^\s"'`)<]+/g)].map(([found]) => found);
    assert.deepEqual(addresses.filter((found) => !/^http:\/\/www\.w3\.org\//.test(found)), []);
    assert.ok(!/ style=|eval\(|new Function|innerHTML|document\.write/.test(html));
    assert.ok(!/@import|url\(/.test(html));
  }],
  ['the lock file names no registry of a machine', () => {
    const lock = JSON.parse(readFileSync(`${web}package-lock.json`, 'utf8'));
    for (const [name, { resolved }] of Object.entries(lock.packages)) {
      assert.ok(resolved === undefined || resolved.startsWith('https://registry.npmjs.org/'), name);
    }
    const { dependencies } = JSON.parse(readFileSync(`${web}package.json`, 'utf8'));
    assert.equal(dependencies, undefined, 'the page has no run-time dependency');
  }],
];
