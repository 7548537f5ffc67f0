// Nothing is asked of anybody but the page's own server, nothing is complained about, and a file works alone.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { open, prefs, ready, still } from '../lib/browser.mjs';
import { fixture, pageWith, serve, TOKEN } from '../lib/server.mjs';

/** Goes through all views and actions of a page, and says what it asked, logged and violated. */
async function everything(page, seen) {
  for (const key of ['ArrowRight', 'End', 'ArrowLeft', 'Home', 'l', 'l', 'p', 'ArrowRight', 'p', 'c']) await page.keyboard.press(key);
  if (await page.locator('#compare').isEnabled()) await page.waitForSelector('.stage.two');
  await page.keyboard.press('ArrowRight');
  if (await page.locator('#compare').isEnabled()) await page.keyboard.press('c');
  await page.waitForSelector('.stage:not(.two)');
  await page.locator('#show-replies').uncheck();
  await page.locator('#show-replies').check();
  await page.locator('#only').check();
  await page.locator('#only').uncheck();
  await page.locator('#pref-projector').click();
  await page.locator('#pref-projector').click();
  for (let i = 0; i < 3; i++) await page.locator('#theme').click();
  await page.locator('#draw').click();
  const box = await page.locator('.drawing').boundingBox();
  await page.mouse.move(box.x + 30, box.y + 30);
  await page.mouse.down();
  await page.mouse.move(box.x + 90, box.y + 60);
  await page.mouse.up();
  assert.equal(await page.locator('.drawing polyline').count(), 1);
  await page.locator('#draw').click();
  const [notes] = await Promise.all([page.context().waitForEvent('page'), page.locator('#notes').click()]);
  await notes.waitForFunction(() => document.querySelector('p.now')?.textContent.length > 0);
  const before = await notes.locator('p.now').textContent();
  await page.keyboard.press('ArrowRight');
  await notes.waitForFunction((old) => document.querySelector('p.now')?.textContent !== old, before);
  await notes.close();
  await still(page);
  const violations = await page.evaluate(() => window.violations);
  return { foreign: (origin) => seen.requests.filter((url) => !url.startsWith(origin) && !/^(data|blob):/.test(url)), errors: seen.errors, violations };
}

/** Saves what an export makes. */
async function saved(page, id) {
  if (!(await page.locator('details.menu').evaluate((menu) => menu.open))) await page.locator('#exports').click();
  const [download] = await Promise.all([page.waitForEvent('download'), page.locator(`#export-${id}`).click()]);
  return { name: download.suggestedFilename(), bytes: readFileSync(await download.path()) };
}

export default [
  ['all views and actions: no foreign request, no error, no violation of the policy', async ({ browser }) => {
    const server = await serve();
    try {
      const { page, context, seen } = await open(browser, server.url('#walk=routed-cross-node'));
      const found = await everything(page, seen);
      assert.deepEqual([found.foreign(server.origin), found.errors, found.violations], [[], [], []]);
      const places = await page.evaluate(() => [document.querySelector('html').outerHTML, JSON.stringify(localStorage), location.href, document.cookie, JSON.stringify(sessionStorage)]);
      assert.deepEqual(places.map((text) => text.includes(TOKEN)), [false, false, false, false, true], 'the token is kept by the tab alone');
      await context.grantPermissions(['clipboard-read', 'clipboard-write']);
      await page.locator('#exports').click();
      await page.locator('#export-link').click();
      const link = await page.evaluate(() => navigator.clipboard.readText());
      assert.ok(link.includes('#walk=routed-cross-node') && !link.includes(TOKEN), link);
      await context.close();
    } finally {
      await server.close();
    }
  }],
  ['a page that asks a foreign server, and one with an inline style, are found out', async ({ browser }) => {
    const broken = (html) => html.replace('<main', '<img src="https://example.com/x.png" alt=""><p style="color:red">x</p><main');
    const server = await serve({ change: broken });
    try {
      const { page, context, seen } = await open(browser, server.url('#walk=routed-cross-node'));
      await page.waitForFunction(() => window.violations.length >= 2);
      const violations = (await page.evaluate(() => window.violations)).join();
      assert.match(violations, /img-src/);
      assert.match(violations, /style-src/);
      assert.ok(seen.errors.length > 0);
      await context.close();
    } finally {
      await server.close();
    }
    // Without a policy the request itself is seen.
    const context = await browser.newContext({ offline: true });
    const page = await context.newPage();
    const requests = [];
    page.on('request', (request) => requests.push(request.url()));
    await page.setContent(broken('<main></main>'));
    assert.ok(requests.includes('https://example.com/x.png'));
    await context.close();
  }],
  ['as a file it shows its walk and asks nobody for anything', async ({ browser }) => {
    const dir = mkdtempSync(join(tmpdir(), 'podlab-file-'));
    try {
      const file = join(dir, 'walk.html');
      writeFileSync(file, pageWith({ live: false, file: true, walk: fixture('vxlan-cross-node') }));
      const { page, context, seen } = await open(browser, pathToFileURL(file).href);
      const found = await everything(page, seen);
      assert.deepEqual([found.foreign(pathToFileURL(file).href), found.errors, found.violations], [[], [], []]);
      assert.equal(seen.requests.filter((url) => !/^(data|blob):/.test(url)).length, 1, 'itself only');
      // A second walk is opened from a file, to compare with.
      const other = join(dir, 'other.json');
      writeFileSync(other, JSON.stringify(fixture('routed-cross-node')));
      await page.locator('#file').setInputFiles(other);
      await page.waitForSelector('.stage.two');
      await page.keyboard.press('c');
      writeFileSync(other, '{"schema":"other/1"}');
      await page.locator('#file').setInputFiles(other);
      await page.waitForSelector('.trouble');
      assert.match(await page.locator('.trouble').textContent(), /no podlab\.walk\/1 document: other\/1/);
      await context.close();
    } finally {
      rmSync(dir, { recursive: true });
    }
  }],
  ['exports: SVG and PNG of the picture with its packet, packets as captured, the table, and the page as one file', async ({ browser }) => {
    const server = await serve();
    const dir = mkdtempSync(join(tmpdir(), 'podlab-exports-'));
    try {
      const { page, context, seen } = await open(browser, server.url('#walk=routed-cross-node&step=4'));
      const svg = (await saved(page, 'svg')).bytes.toString();
      assert.match(svg, /^<svg [^>]*xmlns="http:\/\/www\.w3\.org\/2000\/svg"/);
      assert.match(svg, /class="token"/);
      assert.ok(!/ style="|<script/.test(svg));
      const png = await saved(page, 'png');
      assert.equal(png.name, 'routed-cross-node.png');
      assert.equal(png.bytes.subarray(1, 4).toString(), 'PNG');
      const packets = (await saved(page, 'pcapng')).bytes;
      assert.deepEqual(packets, Buffer.from(fixture('routed-cross-node').pcapng, 'base64'));
      const markdown = (await saved(page, 'md')).bytes.toString();
      assert.equal(markdown.split('\n').filter((line) => /^\| \d+ \|/.test(line)).length, 40);
      assert.match(markdown, /\| 4 \| SYN \| node1\/eth0 \| out \| 10\.244\.1\.2:\d+ \| 10\.244\.2\.2:8080 \| 63 \|/);
      const html = join(dir, 'page.html');
      writeFileSync(html, (await saved(page, 'html')).bytes);
      assert.deepEqual([seen.errors, await page.evaluate(() => window.violations)], [[], []]);
      const again = await open(browser, pathToFileURL(html).href);
      assert.equal(await again.page.locator('#hops tr[data-step]').count(), 40);
      assert.deepEqual([again.seen.errors, again.seen.requests.length], [[], 1]);
      await again.context.close();
      await context.close();
    } finally {
      rmSync(dir, { recursive: true });
      await server.close();
    }
  }],
  ['a picture that brings scripts and styles along brings none of them in, with a policy or without', async ({ browser }) => {
    const evil = fixture('firewall-drop');
    evil.picture = evil.picture.replace('<rect class="paper"', '<script>window.evil = 1</script><image href="https://example.com/x.png" onload="window.evil = 2" style="color:red"/><rect onclick="window.evil = 3" class="paper"');
    evil.title = '<img src=x onerror="window.evil = 4">';
    delete evil.titles;
    const dir = mkdtempSync(join(tmpdir(), 'podlab-evil-'));
    const server = await serve({ boot: { walk: evil } });
    try {
      const file = join(dir, 'walk.html');
      writeFileSync(file, pageWith({ live: false, file: true, walk: evil }));
      for (const url of [server.url(`#walk=${evil.id}`), pathToFileURL(file).href]) {
        const { page, context, seen } = await open(browser, url);
        await page.keyboard.press('ArrowRight');
        await still(page);
        assert.equal(await page.evaluate(() => window.evil), undefined);
        assert.deepEqual(seen.requests.filter((asked) => asked.includes('example.com')), []);
        assert.equal(await page.locator('svg.picture script, svg.picture [onload], svg.picture [onclick], svg.picture [href], svg.picture [style*=red], #goal img').count(), 0);
        await context.close();
      }
    } finally {
      rmSync(dir, { recursive: true });
      await server.close();
    }
  }],
];
