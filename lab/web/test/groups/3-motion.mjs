// Motion: none for who wants none; otherwise along the wire, and over soon.
import assert from 'node:assert/strict';
import { open } from '../lib/browser.mjs';
import { serve } from '../lib/server.mjs';

/** How many animations there are right after each of some steps, read in the page before a frame has passed. */
const motions = (page, steps) => page.evaluate((many) => {
  let most = 0;
  for (let i = 0; i < many; i++) {
    document.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowRight', code: 'ArrowRight', bubbles: true }));
    document.querySelector('#next').click();
    most = Math.max(most, document.getAnimations().length);
  }
  return most;
}, steps);

export default [
  ['with reduced motion nothing is ever animated', async ({ browser }) => {
    const server = await serve();
    try {
      const { page, context } = await open(browser, server.url('#walk=routed-cross-node'), { reducedMotion: 'reduce' });
      assert.equal(await motions(page, 8), 0);
      await context.close();
    } finally {
      await server.close();
    }
  }],
  ['otherwise the packet moves, from where it was to where it is', async ({ browser }) => {
    const server = await serve();
    try {
      const { page, context } = await open(browser, server.url('#walk=routed-cross-node'), { reducedMotion: 'no-preference' });
      assert.ok((await motions(page, 2)) > 0);
      const ends = await page.evaluate(() => {
        document.querySelector('#next').click();
        const [motion] = document.getAnimations();
        const frames = motion.effect.getKeyframes();
        const place = document.querySelector('.token').getAttribute('transform').match(/[\d.]+/g).map(Number);
        const last = frames.at(-1).transform.match(/[\d.]+/g).map(Number);
        return { far: Math.hypot(place[0] - last[0], place[1] - last[1]), count: document.getAnimations().length };
      });
      assert.ok(ends.far < 0.01, JSON.stringify(ends));
      assert.equal(ends.count, 1, 'one packet, one motion');
      await context.close();
    } finally {
      await server.close();
    }
  }],
  ['playing goes by the page’s clock, and stops at the end', async ({ browser }) => {
    const server = await serve();
    try {
      const { page, context } = await open(browser, null, { reducedMotion: 'reduce' });
      await page.clock.install();
      await page.goto(server.url('#walk=firewall-drop'));
      await page.waitForSelector('#app[data-step]');
      await page.locator('#play').click();
      await page.clock.runFor(1500);
      assert.equal(await page.locator('#app').getAttribute('data-step'), '2');
      await page.locator('#speed').selectOption('4');
      await page.clock.runFor(60_000);
      assert.equal(await page.locator('#app').getAttribute('data-step'), '7');
      assert.equal(await page.locator('#play').getAttribute('aria-label'), 'Play');
      await context.close();
    } finally {
      await server.close();
    }
  }],
];
