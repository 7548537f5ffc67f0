// A marker over the picture, for lectures: lines that stay until they are wiped off.

import { s } from './dom';

/** A layer to draw on with a pointer; `wipe` takes all lines away. */
export function drawingLayer(): { element: SVGSVGElement; wipe: () => void } {
  const element = s('svg', { class: 'drawing', 'aria-hidden': 'true' });
  let line: SVGPolylineElement | null = null;
  const point = (event: PointerEvent): string => {
    const box = element.getBoundingClientRect();
    return `${(event.clientX - box.x).toFixed(1)},${(event.clientY - box.y).toFixed(1)} `;
  };
  element.addEventListener('pointerdown', (event) => {
    element.setPointerCapture(event.pointerId);
    line = s('polyline', { points: point(event) });
    element.append(line);
  });
  element.addEventListener('pointermove', (event) => {
    if (line) line.setAttribute('points', line.getAttribute('points') + point(event));
  });
  const end = (): void => {
    line = null;
  };
  element.addEventListener('pointerup', end);
  element.addEventListener('pointercancel', end);
  return { element, wipe: () => element.replaceChildren() };
}
