// Headless Chromium, and pages in it that tell what went wrong in them.
import { existsSync } from 'node:fs';
import { chromium } from 'playwright-core';

const executablePath = process.env.CHROMIUM ?? ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);
/** Generous: machines of tests may be ten times slower than a desk's. */
export const PATIENCE = 60_000;

export async function launch() {
  if (!executablePath) throw new Error('no Chromium: install the package chromium, or name one in CHROMIUM');
  return chromium.launch({
    executablePath,
    headless: true,
    timeout: PATIENCE,
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage', '--force-color-profile=srgb', '--font-render-hinting=none'],
  });
}

/** A page of its own, with what it asks for and complains about. */
export async function open(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, locale: 'en-US', colorScheme: 'light', acceptDownloads: true, ...options });
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  const seen = { requests: [], errors: [], violations: [] };
  page.on('request', (request) => seen.requests.push(request.url()));
  page.on('console', (message) => (message.type() === 'error' || message.type() === 'warning') && seen.errors.push(message.text()));
  page.on('pageerror', (error) => seen.errors.push(String(error)));
  await page.addInitScript(() => {
    window.violations = [];
    document.addEventListener('securitypolicyviolation', (event) => window.violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
  });
  if (url) {
    await page.goto(url);
    await ready(page);
  }
  return { page, context, seen };
}

/** Until a walk is shown. */
export async function ready(page) {
  await page.waitForSelector('#app[data-step]');
}

/** Sets what the page keeps before it starts. */
export async function prefs(page, values) {
  await page.evaluate((change) => {
    const kept = JSON.parse(localStorage.getItem('podlab.page') ?? '{}');
    localStorage.setItem('podlab.page', JSON.stringify({ ...kept, ...change }));
  }, values);
  await page.reload();
  await ready(page);
}

/** Lets all motion come to its end. */
export async function still(page) {
  await page.evaluate(async () => {
    for (const motion of document.getAnimations()) motion.finish();
    await document.fonts.ready;
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  });
}

export const step = (page) => page.locator('#app').getAttribute('data-step').then(Number);
