// Size, and how much work a step is. Times are measured and told; what is asserted is counted.
import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import { readFileSync } from 'node:fs';
import { open, prefs, still } from '../lib/browser.mjs';
import { fixture, serve } from '../lib/server.mjs';

const file = new URL('../../dist/index.html', import.meta.url);

/** A walk with so many sightings: the recorded one over and over. */
function long(count) {
  const walk = structuredClone(fixture('routed-cross-node'));
  const { walks } = walk.trace;
  walk.id = 'long';
  const made = [];
  for (let i = 0; made.reduce((sum, one) => sum + one.hops.length, 0) < count; i++) {
    const copy = structuredClone(walks[i % walks.length]);
    for (const hop of copy.hops) hop.id = 1000 + i;
    made.push(copy);
  }
  walk.trace.walks = made;
  walk.trace.arp = [];
  delete walk.pcapng;
  return walk;
}

/** Counts what steps change in the page, and how often they ask for the layout. */
const work = (page, steps) => page.evaluate(async (many) => {
  let touched = 0;
  const watcher = new MutationObserver((records) => {
    for (const { type, addedNodes, removedNodes, target } of records) {
      if (target.closest?.('#packet, #announcer')) continue;
      touched += type === 'childList' ? addedNodes.length + removedNodes.length : 1;
    }
  });
  watcher.observe(document.querySelector('#app'), { subtree: true, childList: true, attributes: true, characterData: true });
  const times = [];
  for (let i = 0; i < many; i++) {
    const start = performance.now();
    document.querySelector('#next').click();
    times.push(performance.now() - start);
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  }
  watcher.disconnect();
  times.sort((a, b) => a - b);
  return { touched: touched / many, median: times[times.length >> 1], most: times.at(-1) };
}, steps);

export default [
  ['the page is at most 300 KB', ({ note }) => {
    const { size } = statSync(file);
    note(`${(size / 1024).toFixed(1)} KiB, ${(gzipSync(readFileSync(file)).length / 1024).toFixed(1)} KiB compressed`);
    assert.ok(size <= 300_000);
  }],
  ['the first step is shown after two requests: page and walk', async ({ browser, note }) => {
    const server = await serve();
    try {
      const { page, context } = await open(browser, null);
      await page.addInitScript(() => {
        new MutationObserver((_, watcher) => {
          if (document.querySelector('.token-shape')) {
            watcher.disconnect();
            requestAnimationFrame(() => (window.firstStep = performance.now()));
          }
        }).observe(document, { subtree: true, childList: true });
      });
      const times = [];
      for (let i = 0; i < 5; i++) {
        server.asked.length = 0;
        await page.goto(server.url('#walk=routed-cross-node'));
        await page.reload();
        await page.waitForFunction(() => window.firstStep !== undefined);
        times.push(await page.evaluate(() => window.firstStep));
      }
      note(`first step after ${Math.min(...times).toFixed(0)} to ${Math.max(...times).toFixed(0)} ms`);
      assert.deepEqual(server.asked.slice(-2), ['GET /', 'GET /api/walks/routed-cross-node']);
      await context.close();
    } finally {
      await server.close();
    }
  }],
  ['a step touches a handful of nodes, the same with 1000 sightings as with 40', async ({ browser, note }) => {
    const counts = [];
    for (const walk of [long(40), long(1000)]) {
      const server = await serve({ boot: { walk } });
      try {
        const { page, context } = await open(browser, server.url('#walk=long'));
        const start = await page.evaluate(() => {
          const anew = () => {
            const began = performance.now();
            document.querySelector('#lang').click();
            document.querySelector('#ladder').getBoundingClientRect();
            return performance.now() - began;
          };
          const all = anew();
          const without = new CSSStyleSheet();
          without.replaceSync('.hops { display: none !important }');
          document.adoptedStyleSheets = [...document.adoptedStyleSheets, without];
          const ladder = anew();
          document.adoptedStyleSheets = document.adoptedStyleSheets.filter((sheet) => sheet !== without);
          return { all, ladder };
        });
        const found = await work(page, 12);
        note(`${walk.trace.walks.length} packets: everything made anew and laid out in ${start.all.toFixed(0)} ms, with the ladder and without the table's layout ${start.ladder.toFixed(0)} ms; a step ${found.median.toFixed(1)} ms of script, at most ${found.most.toFixed(1)} ms; ${found.touched.toFixed(1)} nodes beside the packet's headers`);
        counts.push(found.touched);
        await context.close();
      } finally {
        await server.close();
      }
    }
    assert.ok(counts[0] > 0 && counts[0] < 40, `${counts[0]} nodes a step`);
    assert.ok(counts[1] < counts[0] * 1.5, `${counts[1]} nodes with 1000 sightings, ${counts[0]} with 40`);
  }],
  ['a step asks for the layout a few times, however long the walk', async ({ browser, note }) => {
    const layouts = [];
    for (const walk of [long(40), long(1000)]) {
      const server = await serve({ boot: { walk } });
      try {
        const { page, context } = await open(browser, server.url('#walk=long'));
        await still(page);
        const session = await context.newCDPSession(page);
        await session.send('Performance.enable');
        const count = async () => (await session.send('Performance.getMetrics')).metrics.find(({ name }) => name === 'LayoutCount').value;
        const before = await count();
        await work(page, 10);
        layouts.push(((await count()) - before) / 10);
        await context.close();
      } finally {
        await server.close();
      }
    }
    note(`layouts a step: ${layouts.map((one) => one.toFixed(1)).join(' and ')}`);
    assert.ok(layouts.every((one) => one > 0 && one <= 8), layouts.join());
  }],
  ['a picture of 60 pods: the ends of the walk can be read', async ({ browser, note }) => {
    const server = await serve();
    try {
      const { page, context } = await open(browser, server.url('#walk=sixty-pods'));
      await prefs(page, {});
      const sizes = [];
      for (const key of ['Home', 'ArrowRight', 'ArrowRight', 'ArrowRight']) {
        await page.keyboard.press(key);
        await still(page);
        sizes.push(await page.evaluate(() => {
          const here = document.querySelector('svg.picture .here text').getBoundingClientRect();
          const frame = document.querySelector('.frame').getBoundingClientRect();
          return { high: here.height, inside: here.top >= frame.top && here.bottom <= frame.bottom && here.left >= frame.left && here.right <= frame.right };
        }));
      }
      note(`names in the picture are ${Math.min(...sizes.map(({ high }) => high)).toFixed(1)} px high`);
      assert.ok(sizes.every(({ high, inside }) => inside && high >= 8.5), JSON.stringify(sizes));
      assert.ok((await page.locator('svg.picture .place.pod').count()) >= 2);
      await context.close();
    } finally {
      await server.close();
    }
  }],
];
