// From labels and certainties to colours.

/** @typedef {{colour: string, name: string}} Class */
/** @typedef {{width: number, height: number, labels: Uint8Array, certainty: Uint8Array}} Answer labels, and how certain, of 255 */

/** @param {string} hex */
const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

/**
 * The same mask in more pixels where it has few, so that its outline is a thin line on the screen.
 * @param {Answer} answer @param {number} most pixels of the copy
 * @returns {Answer}
 */
export function enlarged(answer, most) {
  const by = Math.min(6, Math.floor(Math.sqrt(most / (answer.width * answer.height))));
  if (by < 2) return answer;
  const width = by * answer.width, height = by * answer.height, labels = new Uint8Array(width * height), certainty = new Uint8Array(width * height);
  for (let y = 0, i = 0; y < height; y++) {
    const row = Math.floor(y / by) * answer.width;
    for (let x = 0; x < width; x++, i++) { const at = row + Math.floor(x / by); labels[i] = answer.labels[at]; certainty[i] = answer.certainty[at]; }
  }
  return { width, height, labels, certainty };
}

/**
 * Colour a mask: a translucent fill in a crisp outline.
 * @param {Answer} answer
 * @param {Class[]} classes @param {number} least certainty, 1..255, from which a pixel counts
 * @param {number} opacity 0..1 @param {number} line width of the outline in pixels
 */
export function coloured(answer, classes, least, opacity, line = 1) {
  const { width, height } = answer;
  const out = new ImageData(width, height);
  const labels = new Uint8Array(width * height);
  for (let i = 0; i < labels.length; i++) labels[i] = answer.certainty[i] >= least ? answer.labels[i] : 0;
  const colours = [[0, 0, 0], ...classes.map((one) => rgb(one.colour))];
  const fill = Math.round(255 * opacity);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const label = labels[i];
      if (!label || !colours[label]) continue;
      const edge =
        (x >= line && labels[i - line] !== label) || (x + line < width && labels[i + line] !== label) ||
        (y >= line && labels[i - line * width] !== label) || (y + line < height && labels[i + line * width] !== label);
      const [r, g, b] = colours[label];
      out.data[4 * i] = r; out.data[4 * i + 1] = g; out.data[4 * i + 2] = b;
      out.data[4 * i + 3] = edge ? 255 : fill;
    }
  }
  return out;
}
