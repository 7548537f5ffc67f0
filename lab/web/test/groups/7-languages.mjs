// Korean and English: nothing left out, nothing cut off, at twice the size and on a phone.
import assert from 'node:assert/strict';
import { open, prefs } from '../lib/browser.mjs';
import { classroom } from '../lib/classroom.mjs';
import { serve } from '../lib/server.mjs';

/** What is wider than the page, or wider than its own box where nothing scrolls. */
const overflows = (page) => page.evaluate(() => {
  const found = [];
  const { documentElement: root } = document;
  if (root.scrollWidth > root.clientWidth) found.push(`page ${root.scrollWidth} > ${root.clientWidth}`);
  for (const element of document.querySelectorAll('#app *:not(svg *)')) {
    if (!element.checkVisibility() || element.closest('dialog:not([open])') || element.classList.contains('unseen') || /^(SELECT|INPUT)$/.test(element.tagName)) continue;
    const { overflowX, display } = getComputedStyle(element);
    if (overflowX === 'visible' && display !== 'inline' && element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 0 && !element.closest('.hops, .ladder, .frame, .scroll')) {
      found.push(`${element.tagName}.${element.className}#${element.id} ${element.scrollWidth} > ${element.clientWidth}`);
    }
    // A box that neither scrolls nor shows what does not fit has lost something.
    if (overflowX === 'hidden' && element.scrollWidth > element.clientWidth + 1) found.push(`cut: ${element.tagName}.${element.className}`);
  }
  return found;
});

const VIEWS = [['1280×800', { width: 1280, height: 800 }], ['1280×800 at 200 %', { width: 640, height: 400 }], ['phone', { width: 390, height: 844 }]];

/** Text in Latin letters that a Korean page says without naming its language: words of English left there. */
const english = (page) => page.evaluate(() => {
  const found = [];
  const texts = document.createTreeWalker(document.querySelector('#app'), NodeFilter.SHOW_TEXT);
  for (let node = texts.nextNode(); node; node = texts.nextNode()) {
    const { parentElement: element } = node;
    if (element.closest('[lang=en], svg, .mono, code, pre, option, .layer, kbd, h1 .brand, .mode') || !element.checkVisibility()) continue;
    const words = node.textContent.match(/\b[a-z]{4,}\b/g)?.filter((word) => !/^(node|kubia|veth|cni|lan|eth|fabric|outside|podlab|nftables|json|routed|vxlan|flannel|walk|serve|tables)/.test(word)) ?? [];
    if (words.length > 0) found.push(node.textContent.trim());
  }
  return [...new Set(found)];
});

export default [
  ...['en', 'ko'].flatMap((lang) => VIEWS.map(([name, viewport]) => [`${lang}, ${name}: nothing overflows, nothing is cut off`, async ({ browser }) => {
    const server = await serve(classroom());
    try {
      const { page, context } = await open(browser, server.url('#walk=masquerade-cross-node&step=4'), { viewport });
      for (const change of [{ tab: 'walk' }, { predict: true }, { predict: false, projector: true }, { projector: false, tab: 'lab' }]) {
        await prefs(page, { lang, ...change });
        if (change.predict) await page.keyboard.press('ArrowRight');
        assert.deepEqual(await overflows(page), [], JSON.stringify(change));
      }
      await page.goto(server.url('#lesson=7&walk=routed-cross-node'));
      await page.reload();
      await page.waitForSelector('.block');
      assert.deepEqual(await overflows(page), [], 'lesson');
      await page.goto(server.url('#walk=routed-cross-node&with=vxlan-cross-node&step=5'));
      await page.reload();
      await page.waitForSelector('.stage.two');
      assert.deepEqual(await overflows(page), [], 'compare');
      for (const id of ['next', 'back', 'hops', 'packet', 'compare', 'lang']) {
        await page.locator(`#${id}`).scrollIntoViewIfNeeded();
        assert.ok(await page.locator(`#${id}`).isVisible(), id);
      }
      await context.close();
    } finally {
      await server.close();
    }
  }])),
  ['a text that does not fit is found out', async ({ browser }) => {
    const server = await serve();
    try {
      const { page, context } = await open(browser, server.url(), { viewport: { width: 390, height: 844 } });
      await page.evaluate(() => {
        document.querySelector('#packet h2').style.whiteSpace = 'nowrap';
        document.querySelector('#packet h2').textContent = 'wide '.repeat(60);
      });
      assert.ok((await overflows(page)).length > 0);
      await context.close();
    } finally {
      await server.close();
    }
  }],
  ['the Korean page is marked as Korean, what stays English as English, and no English word is left', async ({ browser }) => {
    const server = await serve(classroom());
    try {
      const { page, context } = await open(browser, server.url('#walk=firewall-drop&step=7'));
      await prefs(page, { lang: 'ko' });
      assert.equal(await page.locator('html').getAttribute('lang'), 'ko');
      assert.deepEqual(await english(page), []);
      assert.ok((await page.locator('[lang=en]').count()) > 5);
      assert.equal(await page.locator('#lang').getAttribute('lang'), 'en');
      await prefs(page, { lang: 'ko', tab: 'lab' });
      assert.deepEqual(await english(page), []);
      await page.evaluate(() => (document.querySelector('#packet h2').textContent = 'Something left over'));
      assert.notDeepEqual(await english(page), []);
      await context.close();
    } finally {
      await server.close();
    }
  }],
  ['a Korean browser gets the Korean page, and what is chosen outlives a reload', async ({ browser }) => {
    const server = await serve();
    try {
      const { page, context } = await open(browser, server.url(), { locale: 'ko-KR' });
      assert.equal(await page.locator('html').getAttribute('lang'), 'ko');
      await page.keyboard.press('l');
      await page.reload();
      await page.waitForSelector('#app[data-step]');
      assert.equal(await page.locator('html').getAttribute('lang'), 'en');
      await context.close();
    } finally {
      await server.close();
    }
  }],
];
