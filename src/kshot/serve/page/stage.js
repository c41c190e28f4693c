// The open image: two canvases over each other, zoom, and the gestures that draw.
import { coloured, enlarged } from "./paint.js";

const FAR = 5; // pixels that a press may move and still be a click

/** @typedef {{kind: string, class_index: number, [more: string]: any}} Mark */

export class Stage {
  /**
   * @param {HTMLElement} box holds both canvases
   * @param {{mark: (mark: Mark) => void, ready: () => boolean, moved: () => void, state: any}} page state: tool, size, grow, current, classes, least, opacity, hidden
   */
  constructor(box, page) {
    this.box = box;
    this.page = page;
    const [image, mask] = box.querySelectorAll("canvas");
    this.canvases = [image, mask];
    this.pens = this.canvases.map((each) => /** @type {CanvasRenderingContext2D} */ (each.getContext("2d")));
    /** @type {ImageBitmap | null} */
    this.picture = null;
    /** @type {{bitmap: ImageBitmap, box: number[]} | null} a part of the image at its own sharpness */
    this.window = null;
    /** @type {import("./paint.js").Answer | null} */
    this.answer = null;
    /** @type {OffscreenCanvas | null} */
    this.layer = null;
    /** @type {Mark[]} */
    this.marks = [];
    this.size = { width: 1, height: 1 };
    this.view = { scale: 1, x: 0, y: 0 };
    /** @type {Map<number, {x: number, y: number}>} */
    this.fingers = new Map();
    /** @type {any} */
    this.gesture = null;
    /** @type {{x: number, y: number} | null} */
    this.cursor = null;
    /** @type {{x: number, y: number} | null} of the keyboard */
    this.crosshair = null;
    /** @type {number | undefined} */
    this.waiting = undefined;
    this.fitted = true;
    this.space = false;
    /** Another image is on its way: what is seen is no longer the open one, and nothing can be drawn on it. */
    this.busy = false;
    /** What the lower canvas shows, as it was when it was last drawn. */
    this.below = "";
    this.pictures = 0;
    this.listen();
    new ResizeObserver(() => this.resized()).observe(box);
  }

  /** The image that is seen goes; what was being drawn on it is dropped. */
  leave() {
    this.busy = true;
    this.gesture = null;
    this.box.setAttribute("aria-busy", "true");
    this.render();
  }

  /** @param {ImageBitmap | null} picture @param {{width: number, height: number}} size */
  show(picture, size) {
    this.busy = false;
    this.box.setAttribute("aria-busy", "false");
    this.picture = picture;
    this.window = null;
    this.pictures++;
    this.size = size;
    this.answer = this.layer = null;
    this.gesture = this.crosshair = null;
    this.marks = [];
    this.fit();
  }

  /** A sharper copy of the same image. @param {ImageBitmap} picture */
  sharpen(picture) { this.picture = picture; this.pictures++; this.render(); }

  /** A part of it, x0 y0 x1 y1, sharper still. @param {ImageBitmap} bitmap @param {number[]} box */
  magnify(bitmap, box) { this.window = { bitmap, box }; this.pictures++; this.render(); }

  /** The part of the image that is seen, x0 y0 x1 y1. */
  seen() {
    const { scale, x, y } = this.view, { width, height } = this.size, { clientWidth, clientHeight } = this.box;
    return [Math.max(0, -x / scale), Math.max(0, -y / scale), Math.min(width, (clientWidth - x) / scale), Math.min(height, (clientHeight - y) / scale)];
  }

  /** @param {import("./paint.js").Answer} answer */
  setAnswer(answer) { this.answer = answer; this.recolour(); }

  recolour() {
    const { classes, least, opacity } = this.page.state;
    if (this.answer) {
      const answer = enlarged(this.answer, 400000), { width, height } = answer;
      this.layer = new OffscreenCanvas(width, height);
      const line = Math.max(1, Math.round(Math.max(width, height) / 900));
      /** @type {any} */ (this.layer.getContext("2d")).putImageData(coloured(answer, classes, least, opacity, line), 0, 0);
    }
    this.render();
  }

  fit() {
    const { clientWidth: w, clientHeight: h } = this.box;
    const scale = Math.min((w - 24) / this.size.width, (h - 24) / this.size.height, 8);
    this.view = { scale, x: (w - scale * this.size.width) / 2, y: (h - scale * this.size.height) / 2 };
    this.fitted = true;
    this.render();
  }

  /** @param {number} factor @param {number} x @param {number} y the place that stays */
  zoom(factor, x, y) {
    const scale = Math.min(64, Math.max(0.02, this.view.scale * factor));
    const by = scale / this.view.scale;
    this.view = { scale, x: x - by * (x - this.view.x), y: y - by * (y - this.view.y) };
    this.fitted = false;
    this.render();
  }

  resized() {
    const ratio = devicePixelRatio || 1;
    for (const canvas of this.canvases) {
      canvas.width = Math.round(this.box.clientWidth * ratio);
      canvas.height = Math.round(this.box.clientHeight * ratio);
    }
    this.below = ""; // a canvas of another size is empty
    if (this.fitted) this.fit(); else this.render();
  }

  render() {
    this.waiting ??= requestAnimationFrame(() => { this.waiting = undefined; this.draw(); });
  }

  draw() {
    const ratio = devicePixelRatio || 1, { scale, x, y } = this.view, [below, above] = this.pens;
    const clean = (/** @type {CanvasRenderingContext2D} */ pen) => {
      pen.setTransform(1, 0, 0, 1, 0, 0);
      pen.clearRect(0, 0, pen.canvas.width, pen.canvas.height);
      pen.setTransform(ratio * scale, 0, 0, ratio * scale, ratio * x, ratio * y);
      pen.imageSmoothingEnabled = scale < 3;
    };
    const place = [this.pictures, ratio, scale, x, y, below.canvas.width, below.canvas.height].join();
    if (place !== this.below) { // a brush that moves leaves the image as it is
      this.below = place;
      clean(below);
      below.imageSmoothingQuality = "high";
      if (this.picture) below.drawImage(this.picture, 0, 0, this.size.width, this.size.height);
      if (this.window) {
        const [x0, y0, x1, y1] = this.window.box;
        below.drawImage(this.window.bitmap, x0, y0, x1 - x0, y1 - y0);
      }
      this.page.moved();
    }
    clean(above);
    if (this.page.state.hidden) return;
    if (this.layer) above.drawImage(this.layer, 0, 0, this.size.width, this.size.height);
    for (const mark of this.marks) this.drawMark(above, mark, 1 / scale);
    this.drawGesture(above, 1 / scale);
    if (this.crosshair) this.drawCrosshair(above, this.crosshair, 1 / scale);
  }

  /** @param {CanvasRenderingContext2D} pen @param {Mark} mark @param {number} one a pixel of the screen */
  drawMark(pen, mark, one) {
    const colour = this.colourOf(mark);
    if (mark.kind === "click") {
      pen.beginPath();
      pen.arc(mark.x, mark.y, 6 * one, 0, 7);
      pen.lineWidth = 2 * one; pen.strokeStyle = "#fff"; pen.fillStyle = mark.on ? colour : "#b3261e";
      pen.fill(); pen.stroke();
      pen.beginPath();
      pen.moveTo(mark.x - 3 * one, mark.y); pen.lineTo(mark.x + 3 * one, mark.y);
      if (mark.on) { pen.moveTo(mark.x, mark.y - 3 * one); pen.lineTo(mark.x, mark.y + 3 * one); }
      pen.lineWidth = 1.5 * one; pen.stroke();
    } else if (mark.kind === "box") {
      const [x0, y0, x1, y1] = mark.box_xyxy;
      pen.setLineDash([6 * one, 4 * one]);
      pen.lineWidth = 1.5 * one; pen.strokeStyle = colour;
      pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
      pen.setLineDash([]);
    }
  }

  /** @param {CanvasRenderingContext2D} pen @param {number} one */
  drawGesture(pen, one) {
    const { tool, size } = this.page.state, gesture = this.gesture;
    if (gesture?.kind === "stroke") {
      pen.lineCap = pen.lineJoin = "round";
      pen.lineWidth = 2 * gesture.radius;
      pen.strokeStyle = gesture.on ? this.colourOf(gesture) : "#fff";
      pen.globalAlpha = 0.6;
      pen.beginPath();
      pen.moveTo(gesture.points[0][0], gesture.points[0][1]);
      for (const [x, y] of gesture.points) pen.lineTo(x, y);
      pen.lineTo(gesture.points[0][0] + (gesture.points.length < 2 ? 0.01 : 0), gesture.points[0][1]);
      if (gesture.points.length >= 2) { pen.beginPath(); gesture.points.forEach((/** @type {number[]} */ [x, y], /** @type {number} */ i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y))); }
      pen.stroke();
      pen.globalAlpha = 1;
    } else if (gesture?.kind === "press" && gesture.moved && gesture.on) {
      this.drawMark(pen, { kind: "box", class_index: gesture.class_index, box_xyxy: boxOf(gesture) }, one);
    }
    if (this.cursor && tool !== "point" && gesture?.kind !== "pan") {
      pen.lineWidth = 1.5 * one;
      for (const [colour, radius] of [["#000", size / 2 + one], ["#fff", size / 2]]) {
        pen.strokeStyle = String(colour);
        pen.beginPath();
        pen.arc(this.cursor.x, this.cursor.y, Number(radius), 0, 7);
        pen.stroke();
      }
    }
  }

  /** @param {CanvasRenderingContext2D} pen @param {{x: number, y: number}} at @param {number} one */
  drawCrosshair(pen, { x, y }, one) {
    for (const [colour, width] of /** @type {[string, number][]} */ ([["#000", 4], ["#fff", 2]])) {
      pen.strokeStyle = colour;
      pen.lineWidth = width * one;
      pen.beginPath();
      for (const [a, b] of [[-14, -4], [4, 14]]) {
        pen.moveTo(x + a * one, y); pen.lineTo(x + b * one, y);
        pen.moveTo(x, y + a * one); pen.lineTo(x, y + b * one);
      }
      pen.stroke();
    }
  }

  /** Move the crosshair of the keyboard. @param {string} key an arrow */
  steer(key) {
    const step = Math.max(1, Math.max(this.size.width, this.size.height) / 50), { width, height } = this.size;
    const from = this.crosshair ?? { x: width / 2, y: height / 2 };
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key] ?? [0, 0];
    this.crosshair = { x: Math.min(width - 1, Math.max(0, from.x + step * by[0])), y: Math.min(height - 1, Math.max(0, from.y + step * by[1])) };
    this.render();
  }

  /** What the tool does at the crosshair. @param {boolean} on */
  press(on) {
    if (this.busy || !this.picture || !this.page.ready()) return;
    const { tool, size, grow, current } = this.page.state, { x, y } = (this.crosshair ??= { x: this.size.width / 2, y: this.size.height / 2 });
    if (tool === "point") this.finish({ kind: "press", on, class_index: current, from: { x, y } });
    else this.finish({ kind: "stroke", on: (tool === "brush") === on, class_index: current, radius: size / 2, grow, points: [[x, y]] });
  }

  /** @param {{class_index: number}} mark */
  colourOf(mark) { return this.page.state.classes[mark.class_index]?.colour ?? "#888"; }

  /** @param {PointerEvent | WheelEvent} event */
  at(event) {
    const box = this.box.getBoundingClientRect(), { scale, x, y } = this.view;
    return { x: (event.clientX - box.left - x) / scale, y: (event.clientY - box.top - y) / scale };
  }

  listen() {
    const { box } = this;
    box.addEventListener("pointerdown", (event) => this.down(event));
    box.addEventListener("pointermove", (event) => this.move(event));
    box.addEventListener("pointerup", (event) => this.up(event, true));
    box.addEventListener("pointercancel", (event) => this.up(event, false));
    box.addEventListener("pointerleave", () => { this.cursor = null; this.render(); });
    box.addEventListener("contextmenu", (event) => event.preventDefault());
    box.addEventListener("wheel", (event) => {
      event.preventDefault();
      const edge = box.getBoundingClientRect();
      this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), event.clientX - edge.left, event.clientY - edge.top);
    }, { passive: false });
  }

  /** @param {PointerEvent} event */
  down(event) {
    if (/** @type {HTMLElement} */ (event.target).closest("form")) return;
    this.box.focus({ preventScroll: true });
    this.fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (this.busy || !this.picture) return;
    try { this.box.setPointerCapture(event.pointerId); } catch { /* a pointer that scripts made */ }
    const { tool, size, grow, current } = this.page.state, here = this.at(event);
    if (this.fingers.size > 1) { this.gesture = { kind: "pinch" }; this.render(); return; }
    if (this.space || event.button === 1) { this.gesture = { kind: "pan" }; return; }
    if (!this.page.ready()) return;
    const on = !(event.button === 2 || event.shiftKey || event.altKey);
    if (tool === "point") {
      this.gesture = { kind: "press", on, class_index: current, from: here, to: here, moved: false, start: [event.clientX, event.clientY] };
    } else {
      const painting = (tool === "brush") === on;
      this.gesture = { kind: "stroke", on: painting, class_index: current, radius: size / 2, grow, points: [[here.x, here.y]] };
    }
    this.render();
  }

  /** @param {PointerEvent} event */
  move(event) {
    const before = this.fingers.get(event.pointerId), gesture = this.gesture;
    this.cursor = event.pointerType === "touch" ? null : this.at(event);
    if (before && gesture?.kind === "pinch") this.pinch(event, before);
    if (before) this.fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (before && gesture?.kind === "pan") {
      this.view.x += event.clientX - before.x; this.view.y += event.clientY - before.y;
      this.fitted = false;
    } else if (gesture?.kind === "stroke") {
      for (const each of event.getCoalescedEvents?.().length ? event.getCoalescedEvents() : [event]) {
        const { x, y } = this.at(each), [lastX, lastY] = gesture.points[gesture.points.length - 1];
        if (Math.hypot(x - lastX, y - lastY) >= Math.max(0.5, gesture.radius / 4)) gesture.points.push([x, y]);
      }
    } else if (gesture?.kind === "press") {
      gesture.to = this.at(event);
      gesture.moved ||= Math.hypot(event.clientX - gesture.start[0], event.clientY - gesture.start[1]) > FAR;
    }
    this.render();
  }

  /** Two fingers. @param {PointerEvent} event @param {{x: number, y: number}} before */
  pinch(event, before) {
    const other = [...this.fingers].find(([id]) => id !== event.pointerId)?.[1];
    if (!other) return;
    const edge = this.box.getBoundingClientRect();
    const by = Math.hypot(event.clientX - other.x, event.clientY - other.y) / Math.max(1, Math.hypot(before.x - other.x, before.y - other.y));
    this.view.x += (event.clientX - before.x) / 2; this.view.y += (event.clientY - before.y) / 2;
    this.zoom(by, (event.clientX + other.x) / 2 - edge.left, (event.clientY + other.y) / 2 - edge.top);
  }

  /** @param {PointerEvent} event @param {boolean} whole */
  up(event, whole) {
    this.fingers.delete(event.pointerId);
    const gesture = this.gesture;
    if (this.fingers.size && gesture?.kind === "pinch") return;
    this.gesture = null;
    this.render();
    if (whole && gesture) this.finish(gesture);
  }

  /** @param {any} gesture */
  finish(gesture) {
    const { width, height } = this.size;
    if (gesture.kind === "stroke") {
      const every = Math.ceil(gesture.points.length / 2000); // the server takes 4000 points
      const points = gesture.points.filter((/** @type {any} */ _, /** @type {number} */ i) => i % every === 0);
      this.page.mark({ ...gesture, points });
    } else if (gesture.kind === "press" && gesture.moved && gesture.on) {
      const [x0, y0, x1, y1] = boxOf(gesture);
      const inside = [Math.max(0, x0), Math.max(0, y0), Math.min(width, x1), Math.min(height, y1)];
      if (inside[2] - inside[0] >= 2 && inside[3] - inside[1] >= 2) {
        this.page.mark({ kind: "box", class_index: gesture.class_index, box_xyxy: inside });
      }
    } else if (gesture.kind === "press") {
      const { x, y } = gesture.from;
      if (x >= 0 && y >= 0 && x < width && y < height) {
        this.page.mark({ kind: "click", class_index: gesture.class_index, on: gesture.on, x, y });
      }
    }
  }
}

/** @param {any} gesture */
function boxOf({ from, to }) {
  return [Math.min(from.x, to.x), Math.min(from.y, to.y), Math.max(from.x, to.x), Math.max(from.y, to.y)];
}
