// The page: its state, its keys, and what holds the parts together.
import { draw, get, look, mask, patch, post, put, Refused } from "./api.js";
import { openExport, openHelp, openTable } from "./dialogs.js";
import { Gallery, told } from "./gallery.js";
import { Stage } from "./stage.js";

const $ = (/** @type {string} */ id) => /** @type {any} */ (document.getElementById(id));

const state = {
  /** @type {any} */ status: null,
  /** @type {{name: string, colour: string}[]} */ classes: [],
  open: -1, current: 0, tool: "point", size: 14, grow: true, hidden: false, opacity: 0.45, least: 128,
  /** @type {any} */ row: null,
  /** @type {number[]} */ paces: [],
};
const page = { state, mark, ready, moved, open, looked, drawn };
const stage = new Stage($("canvas"), page);
const gallery = new Gallery($("gallery"), page);

/** @param {string} text @param {boolean} [lasting] */
function say(text, lasting = false) {
  const toast = document.createElement("div");
  toast.className = "toast";
  toast.append(Object.assign(document.createElement("span"), { textContent: text }));
  const close = Object.assign(document.createElement("button"), { textContent: "OK" });
  close.addEventListener("click", () => toast.remove());
  toast.append(close);
  $("toasts").replaceChildren(...[...$("toasts").children].slice(-2), toast);
  if (!lasting) setTimeout(() => toast.remove(), 7000);
}

/** Do something that the server may refuse, and say so. @template T @param {() => Promise<T>} work @returns {Promise<T | undefined>} */
async function tried(work) {
  try { return await work(); } catch (error) {
    if (!(error instanceof Refused)) throw error;
    say(error.message);
    return undefined;
  }
}

// The open image

let loading = 0;
/** @param {number} index */
async function open(index) {
  if (index < 0 || index >= state.status.images) return;
  const mine = ++loading;
  state.open = index;
  state.row = null;
  $("broken").hidden = true;
  stage.leave();
  tellImage(); // nothing can be decided before it is seen
  gallery.reveal(index);
  sendLook();
  try {
    const [detail, first] = await Promise.all([get(`/api/images/${index}`), bitmap(`/api/images/${index}/image?side=1600`)]);
    if (mine !== loading) return;
    state.row = detail;
    stage.show(first, { width: detail.width, height: detail.height });
    stage.marks = detail.marks;
    shown = 0;
    const { pixels, revision } = await mask(index, detail.revision);
    if (mine !== loading) return;
    if (revision >= shown) { // a stroke may have been answered first
      shown = revision;
      stage.setAnswer(pixels);
    }
  } catch (error) {
    if (mine !== loading) return;
    stage.show(null, { width: 1, height: 1 });
    $("broken").textContent = /** @type {Error} */ (error).message;
    $("broken").hidden = false;
    [state.row] = await get(`/api/rows?index=${index}`).catch(() => [null]);
  }
  tellImage();
}

let shown = 0; // revision of the mask that is shown

/** @param {string} path */
async function bitmap(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Refused((await answer.json()).detail);
  return createImageBitmap(await answer.blob());
}

let sharpening = 0;
/** The image was moved or zoomed: where the copy is too coarse, a finer one is fetched, and then the part that is seen. */
function moved() {
  clearTimeout(sharpening);
  sharpening = setTimeout(sharpen, 180);
}

async function sharpen() {
  const { width, height } = stage.size, longer = Math.max(width, height), picture = stage.picture, index = state.open, mine = loading;
  const have = picture ? Math.max(picture.width, picture.height) : longer, wanted = Math.min(longer, longer * stage.view.scale * devicePixelRatio);
  if (wanted < 1.1 * have) return;
  if (have < Math.min(4096, longer)) {
    const finer = await bitmap(`/api/images/${index}/image?side=4096`).catch(() => null);
    if (finer && mine === loading) stage.sharpen(finer);
    return;
  }
  const edge = 256, [x0, y0, x1, y1] = stage.seen(); // whole blocks, so that the browser finds them again
  const box = [edge * Math.floor(x0 / edge), edge * Math.floor(y0 / edge), Math.min(width, edge * Math.ceil(x1 / edge)), Math.min(height, edge * Math.ceil(y1 / edge))];
  if (box[2] <= box[0] || box[3] <= box[1] || String(stage.window?.box) === String(box)) return;
  const part = await bitmap(`/api/images/${index}/window?x0=${box[0]}&y0=${box[1]}&x1=${box[2]}&y1=${box[3]}&side=4096`).catch(() => null);
  if (part && mine === loading) stage.magnify(part, box);
}

async function reload() {
  const index = state.open, mine = loading;
  if (index < 0 || pending) return;
  const detail = await get(`/api/images/${index}`).catch(() => null);
  if (!detail || mine !== loading || pending) return;
  state.row = detail;
  stage.marks = detail.marks;
  if (detail.revision !== shown) {
    const { pixels, revision } = await mask(index, detail.revision);
    if (mine !== loading || pending) return;
    shown = revision;
    stage.setAnswer(pixels);
  }
  tellImage();
}

function tellImage() {
  const row = state.row;
  $("name").textContent = row?.name ?? gallery.rows.get(state.open)?.name ?? "";
  $("facts").textContent = row ? told(row) : "";
  const locked = !row || row.reason || state.status.read_only;
  for (const id of ["clear", "support", "reject", "accept"]) $(id).disabled = locked;
  $("reject").disabled ||= !state.classes.length;
  $("accept").disabled ||= !state.classes.length;
  $("clear").disabled ||= row && !row.marks?.length && row.state !== "accepted" && row.state !== "rejected";
  $("support").setAttribute("aria-pressed", String(Boolean(row?.support)));
  coach();
}

// Drawing

let pending = 0;
/** @type {Promise<any>} */
let queue = Promise.resolve();

function ready() {
  if (state.status.read_only) { say("This page only shows results (--read-only)."); return false; }
  if (state.classes.length) return true;
  $("first-name").focus();
  return false;
}

/** Send a mark; marks are answered in the order in which they were made. @param {any} mark */
function mark(mark) {
  const index = state.open;
  const { moved, from, to, start, ...clean } = mark;
  stage.marks = [...stage.marks, clean];
  stage.render();
  pending++;
  queue = queue.then(async () => {
    const begun = performance.now();
    try {
      const { pixels, revision } = await draw(index, clean);
      if (index === state.open) { shown = revision; stage.setAnswer(pixels); }
      performance.measure("kshot-stroke", { start: begun, end: performance.now() });
    } catch (error) {
      say(/** @type {Error} */ (error).message);
      stage.marks = stage.marks.filter((each) => each !== clean);
      stage.render();
    }
    pending--;
    if (!pending) reload();
  });
}

// Decisions

/** Decide, and open the next image. @param {string} path @param {any} [body] */
async function decide(path, body) {
  await queue;
  if ($("accept").disabled) return;
  $("accept").disabled = $("reject").disabled = true; // until the next image is there
  const index = state.open, mine = loading;
  const done = await tried(() => post(`/api/images/${index}/${path}`, body?.()));
  if (done) pace();
  if (mine !== loading) return; // somebody opened another one meanwhile
  if (done) await openNext(); else await reload();
}

const accept = () => decide("accept", () => ({ threshold: state.least, revision: shown }));
const reject = () => decide("reject");

async function openNext() {
  const mine = loading;
  const { images } = await get("/api/images?sort=uncertainty&limit=3");
  if (mine !== loading) return undefined; // somebody opened another one meanwhile
  const next = images.find((/** @type {any} */ each) => each.index !== state.open && !["accepted", "rejected", "failed"].includes(each.state));
  if (next) return open(next.index);
  say("All images are decided. Export them, or look through them again.", true);
  return reload();
}

let lastPace = performance.now();
function pace() {
  const now = performance.now();
  if (now - lastPace < 120000) state.paces = [...state.paces.slice(-9), now - lastPace];
  lastPace = now;
}

/** @param {boolean} [wanted] */
async function support(wanted = !state.row?.support) {
  await queue;
  if (await tried(() => post(`/api/images/${state.open}/support`, { support: wanted, threshold: state.least }))) reload();
}

async function clear() {
  await queue;
  if (await tried(() => post(`/api/images/${state.open}/clear`))) reload();
}

/** @param {"undo" | "redo"} which */
async function step(which) {
  await queue;
  const done = await tried(() => post(`/api/${which}`));
  if (!done) return;
  if (done.index === state.open) await reload(); else await open(done.index);
}

/** @param {number} by */
function move(by) {
  const place = gallery.order.indexOf(state.open);
  const next = gallery.order[Math.min(gallery.order.length - 1, Math.max(0, place + by))];
  if (next !== undefined && next !== state.open) open(next);
}

// Classes

function showClasses() {
  const list = $("classes");
  if (list.contains(document.activeElement) && list.children.length === state.classes.length) return;
  list.replaceChildren(...state.classes.map((one, i) => {
    const line = document.createElement("li");
    line.setAttribute("aria-current", String(i === state.current));
    const colour = Object.assign(document.createElement("input"), { type: "color", value: one.colour, title: `Colour of ${one.name}` });
    colour.setAttribute("aria-label", colour.title);
    const name = Object.assign(document.createElement("input"), { className: "class-name", value: one.name, maxLength: 100 });
    name.setAttribute("aria-label", `Class ${i + 1}`);
    line.append(colour, name);
    if (i < 9) line.append(Object.assign(document.createElement("kbd"), { textContent: String(i + 1) }));
    line.addEventListener("click", () => choose(i));
    name.addEventListener("focus", () => choose(i));
    colour.addEventListener("change", () => tried(() => patch(`/api/classes/${i}`, { colour: colour.value })).then(takeStatus));
    name.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === "Escape") { if (event.key === "Escape") name.value = one.name; name.blur(); } });
    name.addEventListener("change", async () => {
      const done = await tried(() => patch(`/api/classes/${i}`, { name: name.value }));
      if (done) takeStatus(done); else name.value = one.name;
    });
    return line;
  }));
  const filter = $("of-class"), chosen = filter.value;
  filter.replaceChildren(new Option("Any class", ""), ...state.classes.map((one) => new Option(one.name)));
  filter.value = chosen;
}

/** @param {number} i */
function choose(i) {
  if (i >= state.classes.length) return;
  state.current = i;
  [...$("classes").children].forEach((line, at) => line.setAttribute("aria-current", String(at === i)));
  coach();
}

/** @param {any} input */
async function addClass(input) {
  if (!input.value.trim()) return;
  const done = await tried(() => post("/api/classes", { name: input.value.trim() }));
  if (!done) return;
  input.value = "";
  input.blur();
  takeStatus(done);
  choose(done.classes.length - 1);
  $("canvas").focus();
  tellImage();
}

// What the server says

let problem = "";
/** @param {any} status */
function takeStatus(status) {
  if (!status) return;
  const before = state.status;
  state.status = status;
  const classes = JSON.stringify(status.classes) !== JSON.stringify(state.classes);
  state.classes = status.classes;
  document.title = `${status.title} · kshot`;
  $("title").textContent = status.title;
  if (classes || !before) { showClasses(); stage.recolour(); gallery.recolour(); }
  $("welcome").hidden = status.classes.length > 0 || status.read_only;
  $("undo").disabled = !status.steps.undo;
  $("redo").disabled = !status.steps.redo;
  $("live").checked = status.live;
  $("live").disabled = status.read_only;
  for (const id of ["new-name", "open-export"]) $(id).disabled = status.read_only;
  showProgress(status);
  if (JSON.stringify(before?.examples) !== JSON.stringify(status.examples)) showExamples(status.examples);
  if (status.problem && status.problem !== problem) say(status.problem);
  problem = status.problem;
  coach();
}

/** @param {any} status */
function showProgress(status) {
  const { counts, images } = status, done = (counts.accepted ?? 0) + (counts.rejected ?? 0), left = images - done - (counts.failed ?? 0);
  $("bar-done").style.width = `${(100 * done) / images}%`;
  const parts = [`${done} of ${images} decided`];
  if (state.paces.length > 2 && left) {
    const middle = [...state.paces].sort((a, b) => a - b)[state.paces.length >> 1];
    parts.push(`about ${Math.max(1, Math.round((middle * left) / 60000))} min left`);
  }
  if (counts.failed) parts.push(`${counts.failed} failed`);
  if (status.fitting) parts.push("learning …");
  else if (status.left && status.fits) parts.push(`following: ${images - status.left} of ${images}`);
  else if (status.ready < images) parts.push(`reading: ${status.ready} of ${images}`);
  $("progress-text").textContent = parts.join(" · ");
}

/** @param {number[]} examples */
function showExamples(examples) {
  $("example-count").textContent = examples.length ? String(examples.length) : "";
  $("example-hint").hidden = examples.length > 0;
  $("examples").replaceChildren(...examples.slice(0, 60).map((index) => {
    const place = document.createElement("div"), picture = document.createElement("button"), drop = document.createElement("button");
    place.className = "example";
    picture.append(Object.assign(document.createElement("img"), { src: `/api/images/${index}/image?side=256`, alt: "" }));
    picture.setAttribute("aria-label", `Open example ${index + 1}`);
    picture.addEventListener("click", () => open(index));
    Object.assign(drop, { className: "drop icon", textContent: "×", title: "No longer an example" });
    drop.setAttribute("aria-label", "No longer an example");
    drop.addEventListener("click", () => tried(() => post(`/api/images/${index}/support`, { support: false })).then(() => (index === state.open ? reload() : undefined)));
    place.append(picture, drop);
    return place;
  }));
}

function coach() {
  const name = state.classes[state.current]?.name, row = state.row, none = !state.status?.examples.length;
  let text = "";
  if (name && row && !row.reason && !state.status.read_only && none && state.status.fits === 0) text = `Click on the ${name} here, or drag a box around it. Shift+click where it is not.`;
  $("coach").textContent = text;
  $("coach").hidden = !text;
}

async function follow() {
  let order = 0;
  for (;;) {
    try {
      const since = state.status.version;
      const { status, changed } = await get(`/api/changes?since=${since}&wait=20`);
      const through = state.status.left && !status.left, fits = status.fits !== state.status.fits;
      if (fits && status.fits) {
        const open = inView.filter((index) => index !== state.open && !["accepted", "rejected", "drawn", "failed"].includes(gallery.rows.get(index)?.state ?? ""));
        behind = { since: performance.now(), images: open.length, left: new Set(open) };
      }
      const read = status.ready !== state.status.ready;
      takeStatus(status);
      gallery.refresh(changed);
      if (read) gallery.refreshWaiting();
      if (!changed || changed.includes(state.open)) await reload();
      // A gallery that moves all the time cannot be used: it is put in order when a task is through, or seldom.
      if (through || (fits && performance.now() - order > 4000)) { order = performance.now(); await gallery.load(); }
    } catch (error) {
      if (!(error instanceof Refused)) console.error(error);
      $("progress-text").textContent = "The server does not answer; trying again. What you accepted is kept.";
      await new Promise((done) => setTimeout(done, 1500));
      const status = await get("/api/status").catch(() => null);
      if (status) { takeStatus(status); await gallery.load().catch(() => undefined); await reload(); }
    }
  }
}

/** @type {number[]} */
let inView = [];
let lookTimer = 0;
/** @param {number[]} indices */
function looked(indices) { inView = indices; sendLook(); }
function sendLook() {
  clearTimeout(lookTimer);
  lookTimer = setTimeout(() => look([state.open, ...inView].filter((each) => each >= 0).slice(0, 400)), 120);
}

/** Tiles in view that do not show the newest task's masks yet, and since when. */
let behind = { since: 0, images: 0, left: new Set() };
/** @param {number} index */
function drawn(index) {
  if (!behind.left.delete(index) || behind.left.size) return;
  const { since, images } = behind, end = performance.now();
  performance.measure("kshot-view", { start: since, end, detail: { images, milliseconds: end - since } });
}

// Controls

/** @param {string} tool */
function setTool(tool) {
  state.tool = tool;
  for (const button of $("tools").children) button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
  $("canvas").dataset.tool = tool;
  $("size-label").hidden = tool === "point";
  stage.render();
}

function filterChanged() {
  gallery.box.scrollTop = 0;
  /** @type {Record<string, string>} */
  const filter = { sort: $("sort").value };
  if ($("state").value) filter.state = $("state").value;
  if ($("of-class").value) filter.class_name = $("of-class").value;
  if ($("search").value) filter.name = $("search").value;
  tried(() => gallery.load(filter));
}

/** @param {number} value */
function setSize(value) { $("size").value = String(value); state.size = Number($("size").value); stage.render(); }

function slid() {
  state.opacity = Number($("opacity").value) / 100;
  state.least = Math.max(1, Math.round(2.56 * Number($("threshold").value)));
  state.size = Number($("size").value);
  $("opacity-out").textContent = `${$("opacity").value}%`;
  $("threshold-out").textContent = `${$("threshold").value}%`;
  stage.recolour();
  gallery.recolour();
}

/** @type {Record<string, (event: KeyboardEvent) => void>} */
const KEYS = {
  v: () => setTool("point"), b: () => setTool("brush"), e: () => setTool(state.tool === "eraser" ? "brush" : "eraser"),
  "[": () => setSize(state.size * 0.8 - 1), "]": () => setSize(state.size * 1.25 + 1), g: () => $("grow").click(), n: () => $("new-name").focus(),
  h: () => $("hide").click(), 0: () => stage.fit(), "+": () => zoomMiddle(1.25), "=": () => zoomMiddle(1.25), "-": () => zoomMiddle(0.8),
  Enter: () => accept(), x: () => reject(), s: () => support(), j: () => move(1), k: () => move(-1),
  p: (event) => stage.press(!event.shiftKey), ArrowRight: () => move(1), ArrowDown: () => move(1), ArrowLeft: () => move(-1), ArrowUp: () => move(-1),
  Delete: () => (state.row?.marks?.length ? clear() : support(false)), "?": () => openHelp(),
};

/** @param {number} factor */
function zoomMiddle(factor) { stage.zoom(factor, $("canvas").clientWidth / 2, $("canvas").clientHeight / 2); }

/** @param {KeyboardEvent} event */
function pressed(event) {
  const target = /** @type {HTMLElement} */ (event.target), control = event.ctrlKey || event.metaKey, key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (control && key === "f") { event.preventDefault(); $("search").focus(); return; }
  if (control && key === "z" && !target.matches("input:not([type=range]):not([type=checkbox])")) { event.preventDefault(); step(event.shiftKey ? "redo" : "undo"); return; }
  if (control || event.altKey || target.closest("dialog") || target.matches("select, input:not([type=range]):not([type=checkbox])")) return;
  if (key === " " && (target === document.body || target.id === "canvas")) { event.preventDefault(); stage.space = true; $("canvas").classList.add("panning"); return; }
  if ((key === "Enter" || key === " ") && target.matches("button, a")) return;
  if (key.startsWith("Arrow") && target.matches("input[type=range]")) return;
  if (event.shiftKey && key.startsWith("Arrow")) { event.preventDefault(); stage.steer(key); return; }
  const chosen = KEYS[key];
  if (/^[1-9]$/.test(key)) choose(Number(key) - 1);
  else if (chosen) { event.preventDefault(); chosen(event); }
}

function listen() {
  addEventListener("keydown", pressed);
  addEventListener("keyup", (event) => { if (event.key === " ") { stage.space = false; $("canvas").classList.remove("panning"); } });
  for (const button of $("tools").children) button.addEventListener("click", () => setTool(button.dataset.tool));
  for (const id of ["opacity", "threshold", "size"]) $(id).addEventListener("input", slid);
  $("grow").addEventListener("change", () => (state.grow = $("grow").checked));
  $("hide").addEventListener("click", () => {
    state.hidden = !state.hidden;
    $("hide").setAttribute("aria-pressed", String(state.hidden));
    stage.render();
    gallery.recolour();
  });
  /** @type {[string, () => any][]} */
  const clicks = [
    ["fit", () => stage.fit()], ["undo", () => step("undo")], ["redo", () => step("redo")], ["accept", accept], ["reject", reject], ["support", () => support()],
    ["clear", clear], ["previous", () => move(-1)], ["next", () => move(1)], ["open-help", openHelp], ["open-export", () => openExport(say)],
    ["open-table", () => tried(() => openTable(state.classes))],
  ];
  for (const [id, work] of clicks) $(id).addEventListener("click", work);
  $("live").addEventListener("change", () => tried(() => put("/api/live", { live: $("live").checked })).then(takeStatus));
  for (const id of ["sort", "state", "of-class"]) $(id).addEventListener("change", filterChanged);
  let typing = 0;
  $("search").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(filterChanged, 180); });
  $("new-class").addEventListener("submit", (/** @type {Event} */ event) => { event.preventDefault(); addClass($("new-name")); });
  $("first-class").addEventListener("submit", (/** @type {Event} */ event) => { event.preventDefault(); addClass($("first-name")); });
}

async function begin() {
  listen();
  setTool("point");
  takeStatus(await get("/api/status"));
  slid();
  await gallery.load({ sort: "uncertainty" });
  if (gallery.order.length) await open(gallery.order[0]);
  if (!state.classes.length) $("first-name").focus();
  document.body.dataset.ready = "true";
  await follow();
}

begin().catch((error) => say(error.message, true));
