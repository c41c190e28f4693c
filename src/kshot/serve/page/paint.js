// From labels and certainties to colours.

/** @typedef {{colour: string, name: string}} Class */

/** @param {string} hex */
const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

/**
 * Colour a mask: a translucent fill in a crisp outline.
 * @param {ImageData} answer red: label, green: certainty
 * @param {Class[]} classes @param {number} least certainty, 1..255, from which a pixel counts
 * @param {number} opacity 0..1 @param {number} line width of the outline in pixels
 */
export function coloured(answer, classes, least, opacity, line = 1) {
  const { width, height, data } = answer;
  const out = new ImageData(width, height);
  const labels = new Uint8Array(width * height);
  for (let i = 0; i < labels.length; i++) labels[i] = data[4 * i + 1] >= least ? data[4 * i] : 0;
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

/** Whether any pixel shows a class. @param {ImageData} answer @param {number} least */
export function isEmpty(answer, least) {
  for (let i = 0; i < answer.data.length; i += 4) if (answer.data[i] && answer.data[i + 1] >= least) return false;
  return true;
}
