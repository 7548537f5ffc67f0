// Runs the page's tests: `node test/run.mjs [GROUP…]`, all groups without one. One line a test; the exit code says whether all passed.
import { readdirSync } from 'node:fs';
import { launch } from './lib/browser.mjs';

const groups = readdirSync(new URL('groups/', import.meta.url)).filter((name) => name.endsWith('.mjs')).sort((a, b) => a.localeCompare(b, 'en', { numeric: true }));
const wanted = process.argv.slice(2);
const chosen = groups.filter((file) => wanted.length === 0 || wanted.includes(file.split('-')[0]));
if (wanted.length > 0 && chosen.length !== wanted.length) {
  process.stderr.write(`no such group: ${wanted.join(' ')}; there are ${groups.map((file) => file.split('-')[0]).join(' ')}\n`);
  process.exit(2);
}
let browser;
let passed = 0;
let failed = 0;
for (const file of chosen) {
  const { default: tests, needsBrowser = true } = await import(`./groups/${file}`);
  if (needsBrowser) browser ??= await launch();
  const group = file.split('-')[0];
  for (const [i, [name, test]] of tests.entries()) {
    const notes = [];
    try {
      await test({ browser, note: (text) => notes.push(text) });
      passed++;
      process.stdout.write(`ok ${group}.${i + 1} ${name}\n`);
    } catch (error) {
      failed++;
      process.stdout.write(`not ok ${group}.${i + 1} ${name}\n${String(error.stack ?? error).replace(/^/gm, '    ')}\n`);
    }
    for (const text of notes) process.stdout.write(`    ${text}\n`);
  }
}
await browser?.close();
process.stdout.write(`page tests: ${passed} passed, ${failed} failed\n`);
process.exit(failed === 0 && passed > 0 ? 0 : 1);
