// Steps by keys, to the end and back: where the packet is, what is said, what the link says.
import assert from 'node:assert/strict';
import { open, step, still } from '../lib/browser.mjs';
import { serve } from '../lib/server.mjs';

/** How far the packet's middle is from the middle of the interface of the current row, in pixels. */
const offset = (page) => page.evaluate(() => {
  const at = document.querySelector('#hops tr[aria-current="step"]').dataset.place;
  const middle = (element) => {
    const { x, y, width, height } = element.getBoundingClientRect();
    return [x + width / 2, y + height / 2];
  };
  const [ax, ay] = middle(document.querySelector('.token-shape .token-box') ?? document.querySelector('.token-shape .token-body'));
  const [bx, by] = middle(document.querySelector(`svg.picture [data-at="${at}"] > rect`));
  return Math.hypot(ax - bx, ay - by);
});

async function walkThrough(page) {
  const count = Number(await page.locator('#app').getAttribute('data-steps'));
  const said = [];
  await page.keyboard.press('Home');
  for (let at = 1; at <= count; at++) {
    if (at > 1) await page.keyboard.press('ArrowRight');
    await still(page);
    assert.equal(await step(page), at);
    const far = await offset(page);
    assert.ok(far <= 2, `step ${at}: the packet is ${far} px beside its interface`);
    if (at > 1) said.push(await page.locator('#announcer').textContent());
  }
  return { count, said };
}

export default [
  ['forth to the end and back by arrows, the packet on its interface at every step', async ({ browser }) => {
    const server = await serve();
    try {
      for (const id of ['routed-cross-node', 'vxlan-cross-node', 'firewall-drop', 'service-cluster-ip']) {
        const { page, context } = await open(browser, server.url(`#walk=${id}`));
        const { count, said } = await walkThrough(page);
        await page.keyboard.press('ArrowRight');
        assert.equal(await step(page), count, 'the end is the end');
        for (let at = count - 1; at >= 1; at--) {
          await page.keyboard.press('ArrowLeft');
          assert.equal(await step(page), at);
          await still(page);
          assert.ok((await offset(page)) <= 2);
          // The same sentence on the way back, each said once.
          if (at > 1) assert.equal(await page.locator('#announcer').textContent(), said[at - 2]);
        }
        assert.equal(await page.locator('[aria-live]').count(), 1);
        await context.close();
      }
    } finally {
      await server.close();
    }
  }],
  ['a packet drawn beside its interface is found out', async ({ browser }) => {
    const server = await serve();
    try {
      const { page, context } = await open(browser, server.url('#walk=routed-cross-node'));
      await still(page);
      await page.evaluate(() => document.querySelector('.token-shape').setAttribute('transform', 'translate(6 0)'));
      assert.ok((await offset(page)) > 2);
      await context.close();
    } finally {
      await server.close();
    }
  }],
  ['Home, End, Space, P, C, L, ? and arrows up and down do what help says', async ({ browser }) => {
    const server = await serve();
    try {
      const { page, context } = await open(browser, server.url('#walk=routed-cross-node'));
      await page.keyboard.press('End');
      assert.equal(await step(page), 40);
      await page.keyboard.press('Home');
      assert.equal(await step(page), 1);
      await page.keyboard.press('Space');
      assert.equal(await page.locator('#play').getAttribute('aria-label'), 'Pause');
      await page.waitForFunction(() => Number(document.querySelector('#app').dataset.step) >= 2);
      await page.keyboard.press('Space');
      assert.equal(await page.locator('#play').getAttribute('aria-label'), 'Play');
      await page.keyboard.press('ArrowDown');
      await page.keyboard.press('ArrowDown');
      assert.equal(await page.locator('.layer.chosen caption').textContent(), 'IP');
      await page.keyboard.press('ArrowUp');
      assert.equal(await page.locator('.layer.chosen caption').textContent(), 'Ethernet');
      await page.keyboard.press('l');
      assert.equal(await page.locator('html').getAttribute('lang'), 'ko');
      await page.keyboard.press('l');
      assert.equal(await page.locator('html').getAttribute('lang'), 'en');
      await page.keyboard.press('c');
      await page.waitForSelector('.stage.two');
      await page.keyboard.press('c');
      await page.waitForSelector('.stage:not(.two)');
      await page.keyboard.press('p');
      await page.waitForSelector('#predict');
      await page.keyboard.press('p');
      await page.keyboard.press('?');
      assert.ok(await page.locator('#help').evaluate((dialog) => dialog.open));
      await page.keyboard.press('Escape');
      assert.ok(!(await page.locator('#help').evaluate((dialog) => dialog.open)));
      await context.close();
    } finally {
      await server.close();
    }
  }],
  ['tab goes through everything and out again; the focus is always visible; the picture is one stop', async ({ browser }) => {
    const server = await serve();
    try {
      const { page, context } = await open(browser, server.url('#walk=firewall-drop'));
      await page.keyboard.press('Tab');
      const first = await page.evaluate(() => document.activeElement.id);
      const stops = [];
      let invisible = [];
      for (let i = 0; i < 200; i++) {
        const stop = await page.evaluate(() => {
          const { activeElement: on } = document;
          const target = on.closest('[role="listitem"]') ? on.querySelector('rect') : on;
          const looks = getComputedStyle(target);
          const seen = (looks.outlineStyle !== 'none' && parseFloat(looks.outlineWidth) > 0) || parseFloat(looks.strokeWidth) >= 3;
          return { id: on.id || on.getAttribute('data-place') || on.textContent.slice(0, 20), inPicture: on.closest('svg.picture') !== null, seen, body: on === document.body };
        });
        if (stop.body || (i > 0 && stop.id === first)) break;
        if (!stop.seen) invisible.push(stop.id);
        stops.push(stop);
        await page.keyboard.press('Tab');
      }
      assert.deepEqual(invisible, []);
      assert.ok(stops.length < 200, 'no key trap');
      assert.equal(stops.filter((stop) => stop.inPicture).length, 1, 'one stop in the picture');
      for (const id of ['compare', 'next', 'hops', 'ladder', 'packet', 'walk']) assert.ok(stops.some((stop) => stop.id === id), id);
      await context.close();
    } finally {
      await server.close();
    }
  }],
  ['inside the picture arrows go from place to place and the step stays', async ({ browser }) => {
    const server = await serve();
    try {
      const { page, context } = await open(browser, server.url('#walk=routed-cross-node&step=4'));
      await page.locator('svg.picture [tabindex="0"]').focus();
      const place = () => page.evaluate(() => document.activeElement.dataset.place);
      const before = await place();
      await page.keyboard.press('ArrowRight');
      assert.notEqual(await place(), before);
      await page.keyboard.press('ArrowLeft');
      assert.equal(await place(), before);
      assert.equal(await step(page), 4);
      await context.close();
    } finally {
      await server.close();
    }
  }],
  ['targets are at least 24 pixels', async ({ browser }) => {
    const server = await serve();
    try {
      const { page, context } = await open(browser, server.url('#walk=vxlan-cross-node'));
      const small = await page.evaluate(() => [...document.querySelectorAll('button, select, summary, input:not([type=checkbox]):not([type=radio]), label.check')]
        .filter((element) => element.checkVisibility())
        .filter((element) => {
          const { width, height } = element.getBoundingClientRect();
          return width < 24 || height < (element.type === 'range' ? 16 : 24);
        }).map((element) => element.id || element.textContent));
      assert.deepEqual(small, []);
      await context.close();
    } finally {
      await server.close();
    }
  }],
  ['predict first: the next row is veiled until one has said what comes, and answers are scored and kept', async ({ browser }) => {
    const server = await serve();
    try {
      const { page, context } = await open(browser, server.url('#walk=masquerade-cross-node&step=3'));
      await page.keyboard.press('p');
      assert.ok(await page.locator('#hops tr[data-step="4"]').isHidden());
      await page.keyboard.press('ArrowRight');
      assert.equal(await step(page), 3);
      assert.equal(await page.evaluate(() => document.activeElement.name), 'interface');
      await page.locator('#predict input[value="node1/eth0"]').check();
      await page.locator('#predict input[name="source"][value="10.244.1.2"]').check();
      await page.locator('#predict input[name="ttl"][value="63"]').check();
      await page.keyboard.press('Enter');
      assert.equal(await step(page), 4);
      assert.equal(await page.locator('#score').textContent(), '2 of 3 right');
      assert.match(await page.locator('.marks .bad').textContent(), /no: it is 192\.0\.2\.11/);
      assert.ok(await page.locator('#hops tr[data-step="4"]').isVisible());
      assert.ok(await page.locator('#hops tr[data-step="5"]').isHidden());
      await page.keyboard.press('End');
      assert.equal(await step(page), 4, 'the end is veiled');
      await page.reload();
      await page.waitForSelector('#score');
      assert.equal(await page.locator('#score').textContent(), '2 of 3 right');
      await context.close();
    } finally {
      await server.close();
    }
  }],
];
