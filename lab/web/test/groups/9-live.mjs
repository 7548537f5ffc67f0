// The page before an ordinary user's lab that is up: break, see it red, heal, see it green; a real packet; events.
import assert from 'node:assert/strict';
import { pathToFileURL } from 'node:url';
import { open, ready } from '../lib/browser.mjs';
import { live } from '../lib/live.mjs';

export default [
  ['break turns the check red, heal turns it green again, and events tell of it', async ({ browser }) => {
    const lab = await live({ isOrdinary: true });
    try {
      const { page, context, seen } = await open(browser, lab.url);
      const check = async () => {
        await page.locator('#verify').click();
        const before = await page.evaluate(() => document.querySelector('#report')?.dataset.failed);
        await page.waitForFunction(() => !document.querySelector('#verify').disabled && document.querySelector('#report'));
        return { before, failed: Number(await page.locator('#report').getAttribute('data-failed')) };
      };
      await page.locator('#tab-lab').click();
      assert.equal((await check()).failed, 0);
      assert.ok((await page.locator('.matrix svg').count()) === 1);
      await page.locator('#fault').selectOption('route-missing');
      await page.locator('#on').fill('node1 node2');
      await page.locator('#break').click();
      await page.waitForSelector('#heal-all');
      const red = await check();
      assert.ok(red.failed > 0, `${red.failed} failed`);
      assert.match(await page.locator('#report tr[data-check="cross-node"]').textContent(), /✘/);
      await page.waitForFunction(() => document.querySelectorAll('#events li[lang]').length === 0 && document.querySelectorAll('#events li').length > 0);
      await page.locator('.broken button').click();
      await page.waitForFunction(() => !document.querySelector('#heal-all') && !document.querySelector('#verify').disabled);
      assert.equal((await check()).failed, 0);
      assert.deepEqual([seen.errors, await page.evaluate(() => window.violations)], [[], []]);
      await context.close();
    } finally {
      await lab.close();
    }
  }],
  ['what a lab refuses is said in its words, and nothing else changes', async ({ browser }) => {
    const lab = await live({ isOrdinary: true });
    try {
      const { page, context } = await open(browser, lab.url);
      await page.locator('#tab-lab').click();
      await page.locator('#fault').selectOption('route-missing');
      await page.locator('#on').fill('node9 node2');
      await page.locator('#break').click();
      await page.waitForSelector('#lab .bad');
      assert.match(await page.locator('#lab .bad').textContent(), /node9/);
      assert.equal(await page.locator('#heal-all').count(), 0);
      await context.close();
    } finally {
      await lab.close();
    }
  }],
  ['what podlab exports as one file works from a file, under the policy that is in it', async ({ browser }) => {
    const lab = await live({ isOrdinary: true });
    try {
      const { page, context, seen } = await open(browser, pathToFileURL(lab.exported('kubia-1', 'kubia-3')).href);
      const rows = await page.locator('#hops tr[data-step]').count();
      assert.ok(rows > 10, `${rows} rows`);
      await page.keyboard.press('End');
      await page.locator('#exports').click();
      const [download] = await Promise.all([page.waitForEvent('download'), page.locator('#export-pcapng').click()]);
      assert.match(download.suggestedFilename(), /\.pcapng$/);
      assert.deepEqual([seen.errors, await page.evaluate(() => window.violations)], [[], []]);
      assert.equal(seen.requests.filter((url) => !/^(data|blob):/.test(url)).length, 1, 'itself only');
      await context.close();
    } finally {
      await lab.close();
    }
  }],
  ['a real packet is sent and walked, its packets saved, and a reload keeps it', async ({ browser }) => {
    const lab = await live({ isOrdinary: true });
    try {
      const { page, context, seen } = await open(browser, lab.url);
      await page.locator('#tab-walk').click();
      await page.locator('#from').selectOption('kubia-1');
      await page.locator('#to').fill('kubia-3');
      await page.locator('#send').click();
      await page.waitForFunction(() => location.hash.includes('walk=live-1'));
      const trace = lab.trace('kubia-1', 'kubia-3');
      assert.equal(Number(await page.locator('#app').getAttribute('data-steps')), trace.walks.reduce((sum, walk) => sum + walk.hops.length, 0));
      await page.keyboard.press('ArrowRight');
      assert.match(await page.locator('#announcer').textContent(), /^node1\/veth/);
      await page.locator('#exports').click();
      const [download] = await Promise.all([page.waitForEvent('download'), page.locator('#export-pcapng').click()]);
      assert.equal(download.suggestedFilename(), 'live-1.pcapng');
      await page.reload();
      await ready(page);
      assert.equal(await page.locator('#app').getAttribute('data-step'), '2');
      assert.deepEqual([seen.errors, await page.evaluate(() => window.violations)], [[], []]);
      await context.close();
    } finally {
      await lab.close();
    }
  }],
];
