// Builds one HTML file without a request to anywhere: styles and script are inside it.
import { defineConfig } from 'vite';
import { viteSingleFile } from 'vite-plugin-singlefile';

/** Puts the script behind the elements that it reads, so that the file is in the order in which it works. */
const scriptLast = {
  name: 'script-last',
  enforce: 'post',
  generateBundle(_, bundle) {
    for (const file of Object.values(bundle)) {
      if (!file.fileName.endsWith('.html')) continue;
      const script = file.source.match(/<script type="module"[^>]*>[\s\S]*?<\/script>/)[0];
      file.source = file.source.replace(script, () => '').replace('</body>', () => `${script.replace(' crossorigin', '')}\n</body>`);
      file.source = file.source.replace(/^\s*\n/gm, '');
    }
  },
};

export default defineConfig({
  plugins: [viteSingleFile(), scriptLast],
  build: { target: 'es2022', cssTarget: ['chrome123', 'firefox128', 'safari18'], modulePreload: false, reportCompressedSize: false },
});
