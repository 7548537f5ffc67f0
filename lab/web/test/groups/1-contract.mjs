// What the page shows is what the trace says: rows, texts, places.
import assert from 'node:assert/strict';
import { open, prefs, ready } from '../lib/browser.mjs';
import { fixture, IDS, pageWith, serve } from '../lib/server.mjs';

const everything = { shown: { arp: true, tcp: true, udp: true, icmp: true, overlay: true, replies: true } };

/** The table as it is in the page. */
const table = (page) => page.evaluate(() => [...document.querySelectorAll('#hops tr[data-step]')].map((row) => ({
  place: row.dataset.place, packet: row.dataset.packet, cells: [...row.cells].map((cell) => cell.textContent.trim()),
})));

/** Each hop and ARP frame of a trace as what a row has to say. */
function expected(trace) {
  const zero = BigInt(trace.walks[0].hops[0].stamp_ns);
  const hops = trace.walks.flatMap((walk) => walk.hops.map((hop) => ({ at: `${hop.space}/${hop.interface}`, hop, time: Number(BigInt(walk.hops[0].stamp_ns) - zero) + hop.after_ns })));
  const arp = trace.arp.map((one) => ({ at: one.at, time: Number(BigInt(one.stamp_ns) - zero) }));
  return [...hops, ...arp].sort((a, b) => a.time - b.time);
}

async function checkAll(page, id) {
  const rows = await table(page);
  const wanted = expected(fixture(id).trace);
  assert.equal(rows.length, wanted.length, `${id}: rows`);
  for (const [i, { at, hop }] of wanted.entries()) {
    const { place, cells } = rows[i];
    assert.equal(place, at, `${id} row ${i + 1}`);
    if (!hop) continue;
    const plain = (text) => text.replace(/ ▲$/, '');
    assert.equal(cells[1].replace('packed', ''), at);
    assert.equal(cells[2], hop.direction);
    assert.equal(plain(cells[3]), hop.source, `${id} row ${i + 1}`);
    assert.equal(plain(cells[4]), hop.target);
    assert.equal(plain(cells[5]), String(hop.ttl));
    assert.equal(cells[3].includes('▲'), hop.changed.some(({ field }) => field === 'SRC'));
    assert.equal(cells[5].includes('▲'), hop.changed.some(({ field }) => field === 'TTL'));
    assert.equal(cells[1].includes('packed'), hop.outer !== undefined);
  }
}

export default [
  ['every sighting of every fixture is a row with its texts', async ({ browser }) => {
    const server = await serve();
    try {
      const { page, context } = await open(browser, server.url());
      await prefs(page, everything);
      for (const id of IDS) {
        await page.goto(server.url(`#walk=${id}`));
        await page.reload();
        await ready(page);
        await checkAll(page, id);
      }
      await context.close();
    } finally {
      await server.close();
    }
  }],
  ['a page that leaves out a sighting is found out', async ({ browser }) => {
    const server = await serve();
    try {
      const { page, context } = await open(browser, server.url('#walk=routed-cross-node'));
      await prefs(page, everything);
      await page.evaluate(() => document.querySelector('#hops tr[data-step="7"]').remove());
      await assert.rejects(checkAll(page, 'routed-cross-node'), /rows/);
      await context.close();
    } finally {
      await server.close();
    }
  }],
  ['rows and ladder are one to one, and every row’s place is one interface of the picture', async ({ browser }) => {
    const server = await serve();
    try {
      for (const id of IDS) {
        const { page, context } = await open(browser, server.url(`#walk=${id}`));
        const found = await page.evaluate(() => {
          const rows = [...document.querySelectorAll('#hops tr[data-step]')];
          return {
            rungs: document.querySelectorAll('#ladder .rung').length,
            rows: rows.length,
            lost: rows.filter((row) => document.querySelectorAll(`svg.picture [data-at="${row.dataset.place}"]`).length !== 1).map((row) => row.dataset.place),
            boxless: [...document.querySelectorAll('svg.picture [data-at]')].filter((of) => of.firstElementChild?.localName !== 'rect').length,
          };
        });
        assert.deepEqual([found.rungs, found.lost, found.boxless], [found.rows, [], 0], id);
        await context.close();
      }
    } finally {
      await server.close();
    }
  }],
  ['with JavaScript off the table that the server wrote is there', async ({ browser }) => {
    const html = pageWith({ live: false, file: true, walk: fixture('routed-cross-node') }).replace('<!--podlab-table-->', '<table><tr><td>node1/eth0</td></tr></table>');
    const context = await browser.newContext({ javaScriptEnabled: false });
    const page = await context.newPage();
    await page.setContent(html);
    assert.equal(await page.locator('main td').textContent(), 'node1/eth0');
    await context.close();
  }],
  ['a click on a row, Enter on its button and a link lead to the step', async ({ browser }) => {
    const server = await serve();
    try {
      const { page, context } = await open(browser, server.url('#walk=routed-cross-node&step=3'));
      const step = () => page.locator('#app').getAttribute('data-step');
      assert.equal(await step(), '3');
      await page.locator('#hops tr[data-step="6"] td').first().click();
      assert.equal(await step(), '6');
      await page.locator('#hops tr[data-step="2"] button').focus();
      await page.keyboard.press('Enter');
      assert.equal(await step(), '2');
      assert.equal(await page.locator('#hops tr[aria-current="step"]').getAttribute('data-step'), '2');
      assert.match(page.url(), /#walk=routed-cross-node&step=2$/);
      await page.reload();
      await ready(page);
      assert.equal(await step(), '2');
      await context.close();
    } finally {
      await server.close();
    }
  }],
  ['a lost packet ends in a cross and its reason; a rewritten one has both labels', async ({ browser }) => {
    const server = await serve();
    try {
      const { page, context } = await open(browser, server.url('#walk=firewall-drop&step=99'));
      assert.equal(await page.locator('.token-cross').count(), 1);
      assert.match(await page.locator('.token-label').textContent(), /✕ a firewall rule dropped it/);
      assert.match(await page.locator('#packet .drop').textContent(), /NETFILTER_DROP/);
      await page.goto(server.url('#walk=masquerade-cross-node&step=4'));
      await page.waitForFunction(() => document.querySelector('.token-label .old')?.textContent === '10.244.1.2 → 10.244.2.2');
      assert.equal(await page.locator('.token-label text').last().textContent(), '192.0.2.11 → 10.244.2.2');
      assert.equal(await page.locator('#packet tr[data-field="ip.src"].changed .mark').textContent(), ' ▲ changed');
      await context.close();
    } finally {
      await server.close();
    }
  }],
];
