// Pictures of the page against pictures of the page in the same run. None is committed: another Chromium or another font draws
// other pixels, and such a test would only tell of that.
import assert from 'node:assert/strict';
import pixelmatch from 'pixelmatch';
import { PNG } from 'pngjs';
import { open, prefs, ready, still } from '../lib/browser.mjs';
import { fixture, pageWith, serve } from '../lib/server.mjs';

const LIMIT = 0.001;

async function shot(page) {
  await page.mouse.move(0, 0);
  await page.evaluate(() => document.activeElement?.blur());
  await still(page);
  return PNG.sync.read(await page.screenshot({ animations: 'disabled', caret: 'hide' }));
}

/** Which part of two pictures is not the same. */
function unlike(a, b) {
  assert.deepEqual([a.width, a.height], [b.width, b.height]);
  return pixelmatch(a.data, b.data, null, a.width, a.height, { threshold: 0.1 }) / (a.width * a.height);
}

const screens = [
  ['a walk', '#walk=routed-cross-node&step=4', {}],
  ['a walk, dark', '#walk=vxlan-cross-node&step=6', { theme: 'dark' }],
  ['a walk, Korean', '#walk=masquerade-cross-node&step=4', { lang: 'ko' }],
  ['a lost packet', '#walk=firewall-drop&step=6', {}],
  ['compare', '#walk=routed-cross-node&with=vxlan-cross-node&step=5', {}],
  ['projector', '#walk=routed-cross-node&step=4', { projector: true }],
];

export default [
  ...screens.map(([name, hash, change]) => [`${name}: the same after a step forth and back, and after a reload; another step looks otherwise`, async ({ browser, note }) => {
    const server = await serve();
    try {
      const { page, context } = await open(browser, server.url(hash));
      await prefs(page, change);
      await page.waitForFunction((two) => !two || document.querySelector('.stage.two'), hash.includes('with='));
      const first = await shot(page);
      await page.keyboard.press('ArrowRight');
      // What scrolls only when it must has by now scrolled as far as these two steps need.
      await still(page);
      await page.keyboard.press('ArrowLeft');
      const settled = await shot(page);
      await page.keyboard.press('ArrowRight');
      const next = await shot(page);
      await page.keyboard.press('ArrowLeft');
      const back = await shot(page);
      await page.reload();
      await ready(page);
      await page.waitForFunction((two) => !two || document.querySelector('.stage.two'), hash.includes('with='));
      const again = await shot(page);
      const parts = [unlike(settled, back), unlike(first, again), unlike(settled, next)];
      note(`unlike: back ${(parts[0] * 100).toFixed(3)} %, reloaded ${(parts[1] * 100).toFixed(3)} %, next step ${(parts[2] * 100).toFixed(2)} %`);
      assert.ok(parts[0] <= LIMIT && parts[1] <= LIMIT, 'the same step looks the same');
      assert.ok(parts[2] > LIMIT, 'another step looks otherwise');
      await context.close();
    } finally {
      await server.close();
    }
  }]),
  ['the picture is drawn the same from a server with a policy and from a file without one', async ({ browser }) => {
    const server = await serve();
    try {
      const served = await open(browser, server.url('#walk=vxlan-cross-node&step=6'));
      const alone = await browser.newContext({ viewport: { width: 1280, height: 800 }, locale: 'en-US', colorScheme: 'light' });
      const page = await alone.newPage();
      await page.setContent(pageWith({ live: false, file: true, walk: fixture('vxlan-cross-node') }));
      await ready(page);
      for (let i = 1; i < 6; i++) await page.keyboard.press('ArrowRight');
      for (const one of [served.page, page]) await one.locator('#picture-a-fit').click();
      const picture = async (of) => {
        await still(of);
        await of.evaluate(() => document.activeElement?.blur());
        const svg = of.locator('svg.picture');
        await svg.evaluate((element) => {
          element.style.position = 'fixed';
          element.style.zIndex = '9';
          element.style.inset = '0 auto auto 0';
          element.style.width = '500px';
          element.style.height = '600px';
          element.style.background = '#fff';
        });
        return PNG.sync.read(await of.screenshot({ clip: { x: 0, y: 0, width: 500, height: 600 } }));
      };
      assert.ok(unlike(await picture(served.page), await picture(page)) <= LIMIT);
      await served.context.close();
      await alone.close();
    } finally {
      await server.close();
    }
  }],
];
