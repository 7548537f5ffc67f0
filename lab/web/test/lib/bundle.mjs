// The page's own modules for tests without a browser.
import { build } from 'vite';

const web = new URL('../../', import.meta.url).pathname;

/** Bundles one module of `src` and imports it. */
export async function load(module) {
  const { output } = await build({
    root: web,
    configFile: false,
    logLevel: 'error',
    build: { ssr: `src/${module}`, write: false, minify: false, target: 'es2022' },
  });
  return import(`data:text/javascript;base64,${Buffer.from(output[0].code).toString('base64')}`);
}
