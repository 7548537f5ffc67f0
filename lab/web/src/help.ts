// Help: the keys and what the shapes mean, in a dialog.

import { button, h, s } from './dom';
import { t } from './i18n';

export function helpDialog(): HTMLDialogElement {
  const keys: [string, string][] = [
    ['Space', t('keySpace')],
    ['← →', t('keyArrows')],
    ['Home End', t('keyHomeEnd')],
    ['↑ ↓', t('keyLayers')],
    ['P', t('keyP')],
    ['C', t('keyC')],
    ['L', t('keyL')],
    ['?', t('keyHelp')],
  ];
  const glyph = (kind: string, ...d: string[]): SVGSVGElement =>
    s('svg', { class: 'shape', viewBox: '-12 -12 24 24', width: 24, height: 24, 'aria-hidden': 'true' }, d.map((path, i) => s('path', { class: i === 0 ? `token-body ${kind}` : 'token-box', d: path })));
  const shapes: [SVGSVGElement, string][] = [
    [glyph('request', 'M-8 -8L8 0L-8 8Z'), t('shapeRequest')],
    [glyph('reply', 'M8 -8L-8 0L8 8Z'), t('shapeReply')],
    [glyph('arp', 'M0 -8L8 0L0 8L-8 0Z'), t('shapeArp')],
    [glyph('request', 'M-6 -6L6 0L-6 6Z', 'M-10 -10H10V10H-10Z'), t('shapeBox')],
    [glyph('lost', 'M-7 -7L7 7M7 -7L-7 7'), t('shapeDrop')],
  ];
  const dialog = h(
    'dialog',
    { class: 'help', id: 'help', 'aria-labelledby': 'help-title' },
    h('h2', { id: 'help-title' }, t('keysTitle')),
    h('dl', {}, keys.map(([key, words]) => [h('dt', {}, h('kbd', {}, key)), h('dd', {}, words)])),
    h('p', { class: 'quiet' }, t('keyPicture')),
    h('h2', {}, t('shapes')),
    h('ul', { class: 'shapes' }, shapes.map(([mark, words]) => h('li', {}, mark, words))),
    button(t('close'), () => dialog.close(), { class: 'primary', id: 'help-close' }),
  );
  return dialog;
}
