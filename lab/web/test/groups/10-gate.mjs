// Who may ask the server: the page that was opened with the token, and nobody else.
import assert from 'node:assert/strict';
import { request } from 'node:http';
import { open } from '../lib/browser.mjs';
import { live } from '../lib/live.mjs';

/** The status of a request with exactly these headers. */
const status = (url, { method = 'GET', headers = {}, body } = {}) => new Promise((done, fail) => {
  const asked = request(url, { method, headers, setHost: headers.Host === undefined }, (response) => {
    response.destroy();
    done({ status: response.statusCode, headers: response.headers });
  });
  asked.on('error', fail);
  asked.end(body);
});

export default [
  ['foreign Host or Origin, no token or another one, GET on actions: 403; the page itself: 200', async () => {
    const lab = await live();
    try {
      const { origin, token } = lab;
      const own = { 'X-Podlab-Token': token };
      const port = new URL(origin).port;
      const expect = async (wanted, path, options) => assert.equal((await status(origin + path, options)).status, wanted, JSON.stringify([path, options]));
      await expect(200, '/api/lab', { headers: own });
      await expect(200, '/api/lab', { headers: { ...own, Host: `localhost:${port}`, Origin: `http://localhost:${port}` } });
      await expect(200, `/?token=${token}`);
      await expect(403, '/');
      await expect(403, '/?token=0');
      await expect(403, '/api/lab');
      await expect(403, `/api/lab?token=${token}`);
      await expect(403, '/api/lab', { headers: { 'X-Podlab-Token': `${token.slice(0, -1)}x` } });
      for (const Host of ['example.com', `example.com:${port}`, '127.0.0.1', `127.0.0.1.example.com:${port}`, `[::1]:${port}`]) await expect(403, '/api/lab', { headers: { ...own, Host } });
      for (const Origin of ['http://example.com', 'null', `https://127.0.0.1:${port}`, 'http://127.0.0.1:1', `http://127.0.0.1:${port}.example.com`]) {
        await expect(403, '/api/lab', { headers: { ...own, Origin } });
        await expect(403, '/api/break', { method: 'POST', headers: { ...own, Origin }, body: '{"fault":"route-missing"}' });
      }
      for (const path of ['/api/trace', '/api/verify', '/api/break', '/api/heal', '/api/lessons/no-nat/start']) await expect(403, path, { headers: own });
      assert.equal(lab.inspect().faults, 0, 'nothing was broken by any of them');
      const { headers } = await status(`${origin}/?token=${token}`);
      assert.match(headers['content-security-policy'], /default-src 'none'/);
      assert.ok(!/unsafe|\*|https?:/.test(headers['content-security-policy']), headers['content-security-policy']);
      assert.deepEqual([headers['x-content-type-options'], headers['referrer-policy'], headers['cache-control']], ['nosniff', 'no-referrer', 'no-store']);
    } finally {
      await lab.close();
    }
  }],
  ['the token leaves the address, the page is loaded anew without it, and another tab has no way to the lab', async ({ browser }) => {
    const lab = await live();
    try {
      const { page, context, seen } = await open(browser, lab.url);
      assert.ok(!page.url().includes('token'), page.url());
      assert.ok(!(await page.evaluate(() => document.cookie)).includes('podlab'), 'no script reads the cookie');
      const asks = (one) => one.evaluate(async (token) => (await fetch('/api/lab', { headers: { 'X-Podlab-Token': token } })).status, lab.token);
      await page.reload();
      await page.locator('#tab-lab').click();
      await page.locator('#break').waitFor();
      assert.deepEqual([page.url().includes('token'), await asks(page), seen.errors], [false, 200, []]);
      const cookies = await context.cookies();
      assert.deepEqual(cookies.map(({ httpOnly, sameSite }) => [httpOnly, sameSite]), [[true, 'Strict']]);
      assert.ok(cookies.every(({ value }) => value !== lab.token), 'the cookie, which goes to every port, is not the token');
      const Cookie = cookies.map(({ name, value }) => `${name}=${value}`).join('; ');
      for (const [wanted, path] of [[200, '/'], [403, '/api/lab'], [403, '/api/events']]) assert.equal((await status(lab.origin + path, { headers: { Cookie } })).status, wanted, path);
      await context.close();
    } finally {
      await lab.close();
    }
  }],
  ['a page of another origin can neither read the lab nor break it', async ({ browser }) => {
    const lab = await live();
    try {
      const { page, context } = await open(browser, null);
      await page.route('http://evil.example/', (route) => route.fulfill({ contentType: 'text/html', body: '<p>evil</p>' }));
      await page.goto('http://evil.example/');
      const found = await page.evaluate(async ([origin, token]) => {
        const tries = {};
        const attempt = async (name, work) => {
          tries[name] = await work().then((answer) => answer.type === 'opaque' ? 'opaque' : answer.status, () => 'refused');
        };
        await attempt('read', () => fetch(`${origin}/api/lab`, { headers: { 'X-Podlab-Token': token } }));
        await attempt('break', () => fetch(`${origin}/api/break`, { method: 'POST', mode: 'no-cors', body: '{"fault":"route-missing"}' }));
        await attempt('page', () => fetch(`${origin}/?token=${token}`));
        return tries;
      }, [lab.origin, lab.token]);
      assert.ok([found.read, found.page].every((one) => one === 'refused'), JSON.stringify(found));
      assert.equal(lab.inspect().faults, 0);
      await context.close();
    } finally {
      await lab.close();
    }
  }],
  ['the page’s own policy lets it work and nothing more: no script from markup, no other server', async ({ browser }) => {
    const lab = await live();
    try {
      const { page, context, seen } = await open(browser, lab.url);
      assert.deepEqual([seen.errors, await page.evaluate(() => window.violations)], [[], []]);
      const blocked = await page.evaluate(async () => {
        const script = document.createElement('script');
        script.textContent = 'window.evil = 1';
        document.body.append(script);
        await fetch('http://example.com/').catch(() => undefined);
        for (let i = 0; i < 600 && window.violations.length < 2; i++) await new Promise((done) => setTimeout(done, 100));
        return { evil: window.evil, violations: window.violations.map((one) => one.split(' ')[0]) };
      });
      assert.equal(blocked.evil, undefined);
      assert.ok(['script-src-elem', 'connect-src'].every((name) => blocked.violations.includes(name)), JSON.stringify(blocked));
      await context.close();
    } finally {
      await lab.close();
    }
  }],
];
