// The HTTP API, as this page uses it.

const key = "kshot-session";
/** Of this window: undo takes back its own steps. */
export const session = sessionStorage.getItem(key) ?? crypto.getRandomValues(new Uint32Array(4)).join("-");
sessionStorage.setItem(key, session);

export class Refused extends Error {}

/** @param {string} method @param {string} path @param {any} [body] @returns {Promise<Response>} */
async function send(method, path, body) {
  /** @type {Record<string, string>} */
  const headers = { "X-Kshot-Session": session };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new Refused("The server does not answer. Is kshot serve still running? What you accepted is kept.");
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  throw new Refused(told.detail ?? `${answer.status} ${answer.statusText}`);
}

/** @param {string} path */
export const get = async (path) => (await send("GET", path)).json();
/** @param {string} path @param {any} [body] */
export const post = async (path, body) => (await send("POST", path, body)).json();
/** @param {string} path @param {any} body */
export const put = async (path, body) => (await send("PUT", path, body)).json();
/** @param {string} path @param {any} body */
export const patch = async (path, body) => (await send("PATCH", path, body)).json();

/** Tell which images are shown; nobody waits for it. @param {number[]} images */
export const look = (images) => send("POST", "/api/look", { images }).catch(() => undefined);

/** @param {Response} answer */
async function decoded(answer) {
  const bitmap = await createImageBitmap(await answer.blob(), { premultiplyAlpha: "none", colorSpaceConversion: "none" });
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const pen = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
  pen.drawImage(bitmap, 0, 0);
  bitmap.close();
  // Above the labels, below the certainties; all three colours are the same.
  const { width, data } = pen.getImageData(0, 0, canvas.width, canvas.height), count = data.length / 8;
  const labels = new Uint8Array(count), certainty = new Uint8Array(count);
  for (let i = 0; i < count; i++) { labels[i] = data[4 * i]; certainty[i] = data[4 * (count + i)]; }
  return { pixels: { width, height: canvas.height / 2, labels, certainty }, revision: Number(answer.headers.get("X-Kshot-Revision")) };
}

/** The mask of an image. @param {number} index @param {number} revision */
export async function mask(index, revision, small = false) {
  return decoded(await send("GET", `/api/images/${index}/mask?small=${small}&v=${revision}`));
}

/** Draw; the answer is the mask. @param {number} index @param {any} mark */
export const draw = async (index, mark) => decoded(await send("POST", `/api/images/${index}/marks`, mark));
