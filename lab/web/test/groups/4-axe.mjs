// axe-core: nothing serious or critical, in any language, theme or view; a lesson by keyboard only.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { open, prefs, ready, still } from '../lib/browser.mjs';
import { serve } from '../lib/server.mjs';
import { classroom } from '../lib/classroom.mjs';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** What axe finds that is serious or critical. */
async function findings(page) {
  await still(page);
  await page.evaluate(axe);
  return page.evaluate(async () => {
    const { violations } = await window.axe.run(document, { resultTypes: ['violations'] });
    return violations.filter(({ impact }) => impact === 'serious' || impact === 'critical')
      .map(({ id, nodes }) => `${id}: ${nodes.slice(0, 4).map((node) => `${node.target.join(' ')} ${node.any[0]?.message ?? ''}`).join(' | ')}`);
  });
}

/** Texts of the picture with less than 4.5 to 1 on the box that they are in: axe looks at no SVG. */
function pale(page) {
  return page.evaluate(() => {
    const light = (colour) => {
      const [r, g, b] = colour.match(/[\d.]+/g).slice(0, 3).map((value) => value / 255).map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const texts = [...document.querySelectorAll('svg.picture .place text')];
    if (texts.length < 10) throw new Error(`${texts.length} texts`);
    return texts.flatMap((text) => {
      const box = text.closest('g').querySelector('rect');
      const [a, b] = [light(getComputedStyle(text).fill), light(getComputedStyle(box).fill)].sort((x, y) => y - x);
      const ratio = (a + 0.05) / (b + 0.05);
      return ratio < 4.5 ? [`${text.textContent} ${ratio.toFixed(2)}`] : [];
    });
  });
}

const views = [];
for (const lang of ['en', 'ko']) {
  for (const theme of ['light', 'dark']) {
    for (const [name, hash, more] of [
      ['a walk', '#walk=routed-cross-node&step=4', {}],
      ['a lost packet', '#walk=firewall-drop&step=7', {}],
      ['compare', '#walk=routed-cross-node&with=vxlan-cross-node&step=5', {}],
      ['projector', '#walk=masquerade-cross-node&step=4', { projector: true }],
      ['predict', '#walk=vxlan-cross-node&step=2', { predict: true }],
      ['lessons', '#lesson=7&walk=routed-cross-node', { tab: 'lesson' }],
    ]) views.push({ name: `${name}, ${lang}, ${theme}`, hash, prefs: { lang, theme, ...more } });
  }
}

export default [
  ...views.map((view) => [`nothing serious: ${view.name}`, async ({ browser }) => {
    const server = await serve(classroom());
    try {
      const { page, context } = await open(browser, server.url(view.hash));
      await prefs(page, view.prefs);
      if (view.prefs.predict) await page.keyboard.press('ArrowRight');
      if (view.prefs.tab) await page.waitForSelector('.block');
      assert.deepEqual(await findings(page), []);
      await context.close();
    } finally {
      await server.close();
    }
  }]),
  ...['light', 'dark'].flatMap((colorScheme) => ['auto', 'light', 'dark'].map((theme) => [`the picture is legible: theme ${theme} on a ${colorScheme} machine`, async ({ browser }) => {
    const server = await serve();
    try {
      const { page, context } = await open(browser, server.url('#walk=vxlan-cross-node&step=5'), { colorScheme });
      await prefs(page, { theme });
      await still(page);
      assert.deepEqual(await pale(page), []);
      // In the colours of the other theme it is not.
      const other = (theme === 'auto' ? colorScheme : theme) === 'dark' ? '#1b1f24' : '#e6edf3';
      await page.evaluate((ink) => document.querySelector('svg.picture').style.setProperty('--ink', ink), other);
      assert.notDeepEqual(await pale(page), []);
      await context.close();
    } finally {
      await server.close();
    }
  }])),
  ['text without contrast and a button without a name are found', async ({ browser }) => {
    const server = await serve();
    try {
      const { page, context } = await open(browser, server.url());
      await page.evaluate(() => {
        document.querySelector('#back').removeAttribute('aria-label');
        document.querySelector('#back').removeAttribute('title');
        document.querySelector('h1').style.color = '#ddd';
      });
      const found = (await findings(page)).join();
      assert.match(found, /button-name/);
      assert.match(found, /color-contrast/);
      await context.close();
    } finally {
      await server.close();
    }
  }],
  ['lesson 7 by keyboard only: find it, start, check fails, hint, solve, check passes', async ({ browser }) => {
    const server = await serve(classroom());
    try {
      const { page, context } = await open(browser, server.url('#walk=routed-cross-node'));
      /** Tab until an element has the focus; a person has no other way. */
      const reach = async (id) => {
        for (let i = 0; i < 120; i++) {
          if ((await page.evaluate(() => document.activeElement.id)) === id) return;
          await page.keyboard.press('Tab');
        }
        throw new Error(`${id} cannot be reached by Tab`);
      };
      const press = async (id) => {
        await reach(id);
        await page.keyboard.press('Enter');
      };
      await press('tab-lesson');
      await page.waitForSelector('#lesson-7');
      await press('lesson-7');
      await page.waitForSelector('#do-check');
      const say = (text) => page.waitForFunction((wanted) => document.querySelector('.told')?.textContent.includes(wanted), text);
      await press('do-start');
      await say('go and look');
      await press('do-check');
      await say('✘ Not yet');
      await press('do-hint');
      await say('1/2');
      await press('do-solve');
      await say('ip route add');
      await press('do-check');
      await say('✔ Passed');
      assert.match(page.url(), /lesson=7/);
      assert.deepEqual(server.asked.filter((line) => line.startsWith('POST')), ['start', 'check', 'hint', 'solve', 'check'].map((verb) => `POST /api/lessons/no-nat/${verb}`));
      await page.reload();
      await ready(page);
      await page.waitForSelector('#do-check');
      await context.close();
    } finally {
      await server.close();
    }
  }],
  ['forced colours: everything is still there', async ({ browser }) => {
    const server = await serve();
    try {
      const { page, context } = await open(browser, server.url('#walk=vxlan-cross-node&step=6'), { forcedColors: 'active' });
      const looks = await page.evaluate(() => {
        const fill = (selector, property) => getComputedStyle(document.querySelector(selector)).getPropertyValue(property);
        return { paper: fill('body', 'background-color'), token: fill('.token-body', 'fill'), wire: fill('svg.picture .wire', 'stroke'), here: fill('svg.picture .here > rect', 'stroke') };
      });
      for (const [name, colour] of Object.entries(looks)) if (name !== 'paper') assert.notEqual(colour, looks.paper, name);
      await context.close();
    } finally {
      await server.close();
    }
  }],
];
