// All images as tiles. Only those in view are in the document, however many there are.
import { get, mask } from "./api.js";
import { coloured } from "./paint.js";

const GAP = 10, CAPTION = 27, SPARE = 2; // rows above and below

/** @typedef {{index: number, name: string, state: string, revision: number, ready: boolean, support: boolean, uncertainty: number | null, areas: Record<string, number>, present: Record<string, number>, reason: string}} Row */

export class Gallery {
  /** @param {HTMLElement} box @param {{open: (index: number) => void, looked: (indices: number[]) => void, drawn: (index: number) => void, state: any}} page */
  constructor(box, page) {
    this.box = box;
    this.page = page;
    this.spacer = /** @type {HTMLElement} */ (box.firstElementChild);
    /** @type {number[]} */
    this.order = [];
    /** @type {Map<number, Row>} */
    this.rows = new Map();
    /** @type {Map<number, HTMLElement>} */
    this.tiles = new Map();
    this.wanted = "";
    this.empty = Object.assign(document.createElement("p"), { className: "nothing", textContent: "No image fits." });
    box.addEventListener("scroll", () => this.render());
    new ResizeObserver(() => this.render()).observe(box);
  }

  /** Ask for the order anew. @param {Record<string, string>} filter */
  async load(filter = this.filter ?? {}) {
    this.filter = filter;
    const query = new URLSearchParams({ ...filter, limit: "60" }).toString();
    this.wanted = query;
    const found = await get(`/api/images?${query}`);
    if (this.wanted !== query) return;
    this.order = found.order;
    for (const row of found.images) this.rows.set(row.index, row);
    this.render();
  }

  /** Images that changed; null for all. @param {number[] | null} changed */
  refresh(changed) {
    const stale = [...this.tiles.keys()].filter((index) => !changed || changed.includes(index));
    if (!changed) this.rows.clear(); else for (const index of changed) if (!this.tiles.has(index)) this.rows.delete(index);
    this.fetchRows(stale);
  }

  /** Tiles whose images were not read yet. */
  refreshWaiting() { this.fetchRows([...this.tiles].filter(([, tile]) => tile.classList.contains("waiting")).map(([index]) => index)); }

  /** @param {number[]} indices */
  async fetchRows(indices) {
    if (!indices.length) return;
    const rows = await get(`/api/rows?${indices.map((index) => `index=${index}`).join("&")}`).catch(() => []);
    for (const row of rows) {
      this.rows.set(row.index, row);
      const tile = this.tiles.get(row.index);
      if (tile) this.fill(tile, row);
    }
  }

  layout() {
    const across = this.box.clientHeight < 220 && this.box.clientWidth > 300; // a strip below the image
    const inside = this.box.clientWidth - 2 * GAP - 2;
    const columns = across ? Math.max(1, this.order.length) : Math.max(1, Math.floor((inside + GAP) / (150 + GAP)));
    const width = across ? 150 : (inside - GAP * (columns - 1)) / columns;
    const picture = across ? Math.max(40, this.box.clientHeight - 2 * GAP - CAPTION - 8) : Math.round(width * 0.75);
    return { across, columns, width, picture, row: picture + CAPTION + GAP + 2 };
  }

  render() {
    const { across, columns, width, picture, row } = this.layout(), count = this.order.length;
    this.spacer.style.height = across ? `${row}px` : `${Math.ceil(count / columns) * row + 2 * GAP}px`;
    this.spacer.style.width = across ? `${count * (width + GAP) + GAP}px` : "";
    const first = across
      ? Math.max(0, Math.floor(this.box.scrollLeft / (width + GAP)) - SPARE)
      : Math.max(0, Math.floor(this.box.scrollTop / row) - SPARE) * columns;
    const seen = across ? Math.ceil(this.box.clientWidth / (width + GAP)) + 2 * SPARE : (Math.ceil(this.box.clientHeight / row) + 2 * SPARE) * columns;
    const shown = this.order.slice(first, first + seen);
    const kept = new Set(shown);
    for (const [index, tile] of this.tiles) if (!kept.has(index)) { tile.remove(); this.tiles.delete(index); }
    /** @type {number[]} */
    const missing = [];
    shown.forEach((index, i) => {
      const place = first + i;
      let tile = this.tiles.get(index);
      if (!tile) {
        tile = this.made(index);
        const known = this.rows.get(index);
        if (known) this.fill(tile, known); else missing.push(index);
      }
      tile.style.left = `${GAP + (place % columns) * (width + GAP)}px`;
      tile.style.top = `${(across ? 4 : GAP) + Math.floor(place / columns) * row}px`;
      tile.style.width = `${width}px`;
      /** @type {HTMLElement} */ (tile.firstElementChild).style.height = `${picture}px`;
    });
    this.fetchRows(missing);
    this.current();
    this.page.looked(shown);
    if (count) this.empty.remove(); else this.box.append(this.empty);
  }

  current() {
    for (const [index, tile] of this.tiles) tile.setAttribute("aria-current", String(index === this.page.state.open));
  }

  /** Bring an image into view. @param {number} index */
  reveal(index) {
    const place = this.order.indexOf(index), { across, columns, row, width } = this.layout();
    if (place < 0) return this.current();
    if (across) {
      const left = place * (width + GAP);
      if (left < this.box.scrollLeft || left + width > this.box.scrollLeft + this.box.clientWidth) this.box.scrollLeft = left - width;
    } else {
      const top = Math.floor(place / columns) * row;
      if (top < this.box.scrollTop || top + row > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = top - row;
    }
    return this.current();
  }

  /** @param {number} index */
  made(index) {
    const tile = document.createElement("button");
    tile.className = "tile waiting";
    tile.innerHTML = '<span class="picture"><img alt="" loading="lazy"><canvas></canvas></span><span class="caption"><i class="dot"></i><span></span><b></b></span>';
    /** @type {HTMLImageElement} */ (tile.querySelector("img")).src = `/api/images/${index}/image?side=256`;
    tile.addEventListener("click", () => this.page.open(index));
    this.spacer.append(tile);
    this.tiles.set(index, tile);
    return tile;
  }

  /** @param {HTMLElement} tile @param {Row} row */
  fill(tile, row) {
    const part = (/** @type {string} */ what) => /** @type {any} */ (tile.querySelector(what));
    const short = row.name.split("/").pop() ?? row.name;
    tile.dataset.state = row.state;
    tile.classList.toggle("waiting", !row.ready && row.state === "todo");
    part(".caption span").textContent = short;
    const area = Object.values(row.areas).reduce((sum, each) => sum + each, 0);
    part("b").textContent = row.state === "todo" || row.state === "failed" ? "" : area ? percent(area) : "none";
    tile.title = `${row.name}: ${told(row)}`;
    tile.setAttribute("aria-label", tile.title);
    tile.querySelector(".badge")?.remove();
    tile.querySelector(".reason")?.remove();
    if (row.support) part(".picture").append(Object.assign(document.createElement("span"), { className: "badge", textContent: "Example" }));
    if (row.reason) {
      part(".picture").append(Object.assign(document.createElement("span"), { className: "reason", textContent: row.reason.replace(`${row.name}: `, "") }));
      part("img").removeAttribute("src");
    }
    const stamp = `${row.revision}`;
    if (tile.dataset.stamp !== stamp && row.state !== "todo" && row.state !== "failed") {
      tile.dataset.stamp = stamp;
      mask(row.index, row.revision, true).then(({ pixels }) => {
        if (tile.dataset.stamp !== stamp) return;
        /** @type {any} */ (tile).answer = pixels;
        this.colour(tile);
        this.page.drawn(row.index);
      }, () => undefined);
    } else if (row.state === "todo") {
      /** @type {any} */ (tile).answer = null;
      tile.dataset.stamp = "";
      part("canvas").width = 1;
    }
  }

  /** @param {any} tile */
  colour(tile) {
    const { classes, least, opacity, hidden } = this.page.state, canvas = tile.querySelector("canvas");
    if (!tile.answer) return;
    canvas.width = tile.answer.width;
    canvas.height = tile.answer.height;
    if (!hidden) canvas.getContext("2d").putImageData(coloured(tile.answer, classes, least, Math.min(1, opacity + 0.1)), 0, 0);
  }

  recolour() { for (const tile of this.tiles.values()) this.colour(tile); }
}

/** @param {number} share */
export const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)}%`;

const STATES = { todo: "to do", predicted: "predicted", doubtful: "doubtful", drawn: "drawn on", accepted: "accepted", rejected: "nothing here", failed: "failed" };

/** What is known of an image, in words. @param {Row} row */
export function told(row) {
  const parts = [/** @type {any} */ (STATES)[row.state]];
  for (const [name, area] of Object.entries(row.areas)) if (area) parts.push(`${name} ${percent(area)}`);
  if (row.state === "doubtful" || row.state === "predicted") parts.push(`doubt ${percent(row.uncertainty ?? 0)}`);
  if (row.support) parts.push("example");
  return parts.join(" · ");
}
