// What leaves the page as a file: picture, packets, hop table, the page itself.

import { getBytes, hasServer } from './api';
import { lang, t } from './i18n';
import { micros, type Sighting } from './model';
import { state } from './store';
import { titleOf } from './walks';
import { sentence } from './why';

/** The page as it came, kept before anything in it was changed. */
const pristine = document.documentElement.outerHTML;

function save(name: string, type: string, data: BlobPart): void {
  const url = URL.createObjectURL(new Blob([data], { type }));
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

function base(): string {
  return (state.walk?.id ?? 'walk').replace(/[^A-Za-z0-9.-]+/g, '-');
}

const PROPERTIES = ['fill', 'stroke', 'stroke-width', 'stroke-dasharray', 'stroke-linecap', 'stroke-linejoin', 'font-family', 'font-size', 'font-weight', 'text-anchor', 'text-decoration', 'opacity'];

/** The picture as it looks now, with its packet, to stand alone: what styles do here is written as attributes. */
export function pictureText(svg: SVGSVGElement): string {
  const copy = svg.cloneNode(true) as SVGSVGElement;
  const [from, to] = [[svg, ...svg.querySelectorAll('*')], [copy, ...copy.querySelectorAll('*')]];
  for (const [i, element] of to.entries()) {
    const looks = getComputedStyle(from[i]!);
    element.removeAttribute('style');
    if (/^(title|desc)$/.test(element.localName)) continue;
    for (const property of PROPERTIES) {
      const value = looks.getPropertyValue(property);
      if (value) element.setAttribute(property, value);
    }
  }
  const { width, height } = svg.viewBox.baseVal;
  copy.setAttribute('width', String(width));
  copy.setAttribute('height', String(height));
  copy.setAttribute('xmlns', 'http://www.w3.org/2000/svg');
  return new XMLSerializer().serializeToString(copy);
}

export function exportSvg(svg: SVGSVGElement): void {
  save(`${base()}.svg`, 'image/svg+xml', pictureText(svg));
}

export async function exportPng(svg: SVGSVGElement): Promise<void> {
  const { width, height } = svg.viewBox.baseVal;
  const image = new Image();
  image.src = `data:image/svg+xml,${encodeURIComponent(pictureText(svg))}`;
  await image.decode();
  const canvas = document.createElement('canvas');
  canvas.width = width * 2;
  canvas.height = height * 2;
  const pen = canvas.getContext('2d')!;
  pen.fillStyle = getComputedStyle(document.body).backgroundColor;
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(image, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise<Blob | null>((done) => canvas.toBlob(done, 'image/png'));
  if (blob) save(`${base()}.png`, 'image/png', blob);
}

/** Whether there are packets to save. */
export function hasPackets(): boolean {
  return state.walk?.doc.pcapng !== undefined || (hasServer() && state.walk?.id.startsWith('live-') === true);
}

export async function exportPackets(): Promise<void> {
  const kept = state.walk?.doc.pcapng;
  const bytes = kept === undefined ? await getBytes('/api/trace.pcapng') : Uint8Array.from(atob(kept), (sign) => sign.charCodeAt(0));
  save(`${base()}.pcapng`, 'application/x-pcapng', bytes);
}

/** The hop table as Markdown, of what is shown. */
export function hopTable(shown: Sighting[]): string {
  const cell = (text: string): string => text.replace(/\|/g, '\\|');
  const heads = [t('thNumber'), t('thPacket'), t('thWhere'), t('thDirection'), t('thSource'), t('thTarget'), t('thTtl'), t('thTime'), t('thWhy')];
  const rows = shown.map((row, i) =>
    [String(i + 1), row.packet, row.at, t(row.direction), row.hop?.source ?? '', row.hop?.target ?? '', String(row.hop?.ttl ?? ''), micros(row.time), sentence(lang(), row)].map(cell),
  );
  return [heads, heads.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n') + '\n';
}

export function exportMarkdown(): void {
  const { walk } = state;
  if (!walk) return;
  save(`${base()}.md`, 'text/markdown', `# ${titleOf(walk.doc)}\n\n${hopTable(walk.shown)}\n${walk.doc.trace.verdict}\n`);
}

/** This page with this walk in it: one file that asks nobody anything. */
export function exportHtml(): void {
  if (!state.walk) return;
  const boot = JSON.stringify({ live: false, file: true, walk: state.walk.doc }).replace(/</g, '\\u003c');
  const page = pristine.replace(/(id="podlab-boot">)[\s\S]*?(<\/script>)/, (_, open: string, close: string) => open + boot + close);
  save(`${base()}.html`, 'text/html', `<!doctype html>\n${page}\n`);
}
