// Makes the screenshots of the guides: `npm run screenshots`, into docs/ of the project.
import { writeFileSync } from 'node:fs';
import { launch, open, prefs, still } from './lib/browser.mjs';
import { serve } from './lib/server.mjs';

const docs = new URL('../../../docs/', import.meta.url);
const desk = { width: 1280, height: 800 };
const shots = [
  { file: 'page.webp', hash: '#walk=masquerade-cross-node&step=4', viewport: desk, prefs: {} },
  { file: 'page-compare.webp', hash: '#walk=routed-cross-node&with=vxlan-cross-node&step=5', viewport: desk, prefs: {} },
  { file: 'page-ko.webp', hash: '#walk=vxlan-cross-node&step=6', viewport: desk, prefs: { lang: 'ko', theme: 'dark' } },
  { file: 'page-phone.webp', hash: '#walk=firewall-drop&step=7', viewport: { width: 390, height: 844 }, prefs: { lang: 'ko' } },
];

const server = await serve();
const browser = await launch();
for (const { file, hash, viewport, prefs: change } of shots) {
  const { page, context } = await open(browser, server.url(hash), { viewport });
  await prefs(page, change);
  if (hash.includes('with=')) await page.waitForSelector('.stage.two');
  await still(page);
  const path = new URL(file, docs);
  const session = await context.newCDPSession(page);
  const { data } = await session.send('Page.captureScreenshot', { format: 'webp', quality: 88 });
  const bytes = Buffer.from(data, 'base64');
  writeFileSync(path, bytes);
  process.stdout.write(`${file}: ${(bytes.length / 1024).toFixed(0)} KiB\n`);
  await context.close();
}
await browser.close();
await server.close();
