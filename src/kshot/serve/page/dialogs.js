// Help, export and the table.
import { get, post } from "./api.js";
import { percent } from "./gallery.js";

const $ = (/** @type {string} */ id) => /** @type {any} */ (document.getElementById(id));

const KEYS = [
  ["click", "it is the class"], ["Shift or right click", "it is not"], ["drag", "a box around one"], ["Wheel", "zoom to the cursor"],
  ["Space + drag", "move the image"], ["v", "point or box"], ["b", "brush"], ["e", "eraser, and back"], ["[ ]", "size of the brush"],
  ["g", "strokes grow to what looks the same"], ["1 … 9", "choose a class"], ["n", "new class"], ["Enter", "accept, open the most doubtful"],
  ["x", "none of the classes is here"], ["s", "use as an example, or not"], ["Delete", "no example; clear what is drawn"],
  ["j k or arrows", "next, previous image"], ["Ctrl z", "undo"], ["Ctrl Shift z", "redo"], ["h", "hide the mask"], ["0", "fit the image"],
  ["+ -", "zoom"], ["Shift arrows", "a crosshair for the keyboard"], ["p or Shift p", "it is the class there; it is not"], ["Ctrl f", "find images"], ["?", "this page"],
];

const WORDS = new Set(["or", "click", "+", "drag", "…", "arrows", "right"]);

export function openHelp() {
  if (!$("keys").children.length) {
    for (const [keys, what] of KEYS) {
      const line = document.createElement("div"), dt = document.createElement("dt"), dd = document.createElement("dd");
      dt.append(...keys.split(" ").map((part) => (WORDS.has(part) ? ` ${part} ` : Object.assign(document.createElement("kbd"), { textContent: part }))));
      dd.textContent = what;
      line.append(dt, dd);
      $("keys").append(line);
    }
  }
  $("help").showModal();
}

/** @type {{name: string, about: string, command: string}[]} */
let formats = [];

export async function openExport(/** @type {(text: string) => void} */ say) {
  if (!formats.length) {
    try { formats = await get("/api/formats"); } catch (error) { say(String(/** @type {Error} */ (error).message)); return; }
    formats.forEach(({ name, about }, i) => {
      const label = document.createElement("label");
      const input = Object.assign(document.createElement("input"), { type: "radio", name: "format", value: name, checked: name === "coco" || (!i && !formats.some((f) => f.name === "coco")) });
      label.append(input, Object.assign(document.createElement("strong"), { textContent: name }), Object.assign(document.createElement("small"), { textContent: about }));
      $("formats").append(label);
    });
    $("export").addEventListener("change", showCommand);
    $("tolerance").addEventListener("input", showCommand);
    $("copy").addEventListener("click", async () => {
      await navigator.clipboard?.writeText($("command").textContent).then(() => ($("copy").textContent = "Copied"), () => undefined);
      setTimeout(() => ($("copy").textContent = "Copy"), 1500);
    });
    $("do-export").addEventListener("click", () => run());
  }
  $("exported").textContent = "";
  showCommand();
  $("export").showModal();
}

function asked() {
  const format = /** @type {HTMLInputElement | null} */ (document.querySelector("#formats :checked"))?.value ?? "coco";
  return {
    format, instances: $("instances").value || null, polygons: $("polygons").checked, tolerance: Number($("tolerance").value) || 0,
    copy_images: $("copy-images").checked, accepted_only: $("accepted-only").checked, overwrite: $("overwrite").checked,
  };
}

function showCommand() {
  const wanted = asked(), base = formats.find((one) => one.name === wanted.format)?.command ?? "";
  const more = [
    wanted.instances ? `--instances ${wanted.instances}` : "", wanted.polygons ? "--polygons" : "",
    wanted.tolerance ? `--tolerance ${wanted.tolerance}` : "", wanted.copy_images ? "--copy-images" : "", wanted.overwrite ? "--overwrite" : "",
  ];
  const told = wanted.accepted_only ? "\n# The command takes all images; accepted ones alone are written here." : "";
  $("command").textContent = [base, ...more.filter(Boolean)].join(" ") + told;
}

async function run() {
  $("do-export").disabled = true;
  $("exported").textContent = "Writing …";
  try {
    const done = await post("/api/export", asked());
    $("exported").textContent = [`${done.images} images written to ${done.path}`, ...done.notes].join(" · ");
  } catch (error) {
    $("exported").textContent = /** @type {Error} */ (error).message;
  }
  $("do-export").disabled = false;
}

/** @param {{name: string}[]} classes */
export async function openTable(classes) {
  const found = await get("/api/images?sort=name&limit=1000");
  const head = document.createElement("tr");
  for (const name of ["Image", "State", ...classes.map((one) => one.name)]) head.append(Object.assign(document.createElement("th"), { textContent: name }));
  $("table-head").replaceChildren(head);
  $("table-body").replaceChildren(...found.images.map((/** @type {any} */ row) => {
    const line = document.createElement("tr");
    line.append(Object.assign(document.createElement("th"), { textContent: row.name }));
    const cells = [row.state, ...classes.map((one) => (row.areas[one.name] === undefined ? "" : percent(row.areas[one.name])))];
    for (const cell of cells) line.append(Object.assign(document.createElement("td"), { textContent: cell }));
    return line;
  }));
  $("table").showModal();
}
