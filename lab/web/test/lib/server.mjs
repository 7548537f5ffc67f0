// The server that the page has in tests with recorded walks: the policy and paths of `podlab serve`, without a lab.
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';

const web = new URL('../../', import.meta.url).pathname;

export const TOKEN = 'f0e1d2c3b4a5968778695a4b3c2d1e0f';
const COOKIE = 'podlab-test=again';

/** The texts of the recorded walks by id: those that podlab carries with it, and what only tests need. */
const walks = new Map(['../walks/', 'fixtures/'].flatMap((dir) => readdirSync(web + dir).sort().map((name) => {
  const text = readFileSync(web + dir + name, 'utf8');
  return [JSON.parse(text).id, text];
})));

/** A recorded walk. */
export function fixture(id) {
  return JSON.parse(walks.get(id));
}

export const IDS = [...walks.keys()];

/** The built page with a boot document in it, as the server and the export write it. */
export function pageWith(boot, html = readFileSync(`${web}dist/index.html`, 'utf8')) {
  const json = JSON.stringify(boot).replace(/</g, '\\u003c');
  return html.replace(/(id="podlab-boot">)\{\}(<\/script>)/, (_, open, close) => open + json + close);
}

/** The policy for a page: its one script and its one style, by their digests. */
export function policy(html) {
  const digest = (text) => `'sha256-${createHash('sha256').update(text).digest('base64')}'`;
  const script = html.match(/<script type="module"[^>]*>([\s\S]*?)<\/script>/)[1];
  const style = html.match(/<style[^>]*>([\s\S]*?)<\/style>/)[1];
  return `default-src 'none'; script-src ${digest(script)}; style-src ${digest(style)}; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`;
}

/** Starts it; `change` may alter the page (to test the tests), `extra` answers paths of its own. */
export async function serve({ change = (html) => html, extra = {}, boot = {} } = {}) {
  const titles = IDS.map((id) => ({ id, title: fixture(id).titles ?? fixture(id).title }));
  const html = change(pageWith({ live: false, version: '0.1.0', walks: titles, ...boot }));
  const asked = [];
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url, 'http://x');
    asked.push(`${request.method} ${pathname}`);
    const { searchParams } = new URL(request.url, 'http://x');
    const may = request.headers['x-podlab-token'] === TOKEN || (['/', '/api/events'].includes(pathname) && searchParams.get('token') === TOKEN) || (pathname === '/' && request.headers.cookie === COOKIE);
    const send = (status, type, body) => {
      response.writeHead(status, { 'Content-Type': type, 'Content-Security-Policy': policy(html), 'X-Content-Type-Options': 'nosniff', 'Referrer-Policy': 'no-referrer', 'Cache-Control': 'no-store', ...(may && pathname === '/' && { 'Set-Cookie': `${COOKIE}; Path=/; HttpOnly; SameSite=Strict` }) });
      response.end(body);
    };
    const walk = /^\/api\/walks\/([a-z0-9-]+)$/.exec(pathname)?.[1];
    if (!may) send(403, 'application/json', '{"error":"forbidden"}');
    else if (extra[pathname]) send(200, 'application/json', JSON.stringify(extra[pathname](request)));
    else if (pathname === '/') send(200, 'text/html; charset=utf-8', html);
    else if (walk && IDS.includes(walk)) send(200, 'application/json', walks.get(walk));
    else if (pathname === '/api/walks') send(200, 'application/json', JSON.stringify({ walks: titles }));
    else send(404, 'application/json', '{"error":"no such thing here"}');
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  const origin = `http://127.0.0.1:${server.address().port}`;
  return { origin, asked, url: (hash = '') => `${origin}/?token=${TOKEN}${hash}`, close: () => new Promise((done) => server.close(done).closeAllConnections?.()) };
}
