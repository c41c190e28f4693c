"use strict";
(() => {
  const PAGE = 48;
  const PRESENT = 0, PIXELS = 1, UNIT = 10000;  // shares come as whole numbers of this part
  const at = (id) => document.getElementById(id);
  const run = JSON.parse(at("run").textContent);
  const embeds = JSON.parse(at("embeds").textContent);
  const { classes, images, names, status, facts } = run;
  const state = { view: "overlay", reverse: false, page: 0 };
  const has = { overlay: true, image: images !== null, scores: embeds.some((each) => each[2]) };
  has.both = has.image || has.scores;
  let shown = [];  // places of records in the columns, which are in the order of names

  // Everything is made of nodes and text, never of markup: a file may be called anything.
  function node(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === true) made.setAttribute(name, "");
      else if (value !== false && value != null) made.setAttribute(name, value);
    }
    made.append(...children.filter((child) => child != null));
    return made;
  }
  const share = (value) => (value > 0 && value < 0.0995 ? `${(100 * value).toFixed(1)}%` : `${Math.round(100 * value)}%`);
  const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
  const swatch = (colour) => {
    const made = node("i", { class: "swatch", "aria-hidden": "true" });
    made.style.setProperty("--colour", colour);
    return made;
  };

  function link(path) {
    try {
      return path.split("/").map(encodeURIComponent).join("/");
    } catch {
      return null;  // a name that is no Unicode has no address
    }
  }
  const statuses = { d: "done", e: "empty", f: "failed" };
  function record(place) {
    const name = names[place], failed = status[place] === "f";
    const stem = name.replace(/(?<=[^/])\.[^./]+$/, "");
    const made = () => Object.fromEntries(Object.entries(run.rules).map(([kind, [before, after]]) => [kind, before + stem + after]));
    return {
      name, status: statuses[status[place]], reason: run.reasons[place], uncertainty: run.uncertainty[place] / UNIT,
      size_hw: run.sizes[run.size[place]], outputs: failed ? {} : run.outputs[place] ?? made(), embedded: run.embedded[place],
      facts: failed ? [] : facts.map(([present, pixels, objects, score]) => (
        { present: present[place] / UNIT, pixels: pixels[place], objects: objects[place], score: score[place] / UNIT })),
    };
  }
  function sources(record) {
    const [overlay, image, heat] = embeds[record.embedded] ?? [];
    const outputs = record.outputs;
    return {
      overlay: overlay ?? (outputs.overlay ? link(outputs.overlay) : null),
      image: image ?? (images !== null && record.status !== "failed" ? link(`${images}/${record.name}`) : null),
      scores: heat ?? null,
    };
  }

  // ---- choosing and ordering
  const total = (kind, place) => facts.reduce((sum, each) => sum + each[kind][place], 0);
  const best = (kind, place) => facts.reduce((most, each) => Math.max(most, each[kind][place]), 0);
  const area = (place) => { const [height, width] = run.sizes[run.size[place]]; return height * width || 1; };
  const keys = {
    uncertainty: (place) => run.uncertainty[place],
    area: (place, index) => (index < 0 ? total(PIXELS, place) : facts[index][PIXELS][place]) / area(place),
    presence: (place, index) => (index < 0 ? best(PRESENT, place) : facts[index][PRESENT][place]),
  };
  const orders = new Map();
  // All records in one order, made once; failed ones have no figures and go last.
  function order(sort, index) {
    const called = sort === "uncertainty" || sort === "name" ? sort : `${sort} ${index}`;
    if (!orders.has(called)) {
      const places = Uint32Array.from(names, (_, place) => place);
      if (sort !== "name") {
        const values = Float64Array.from(places, (place) => (status[place] === "f" ? -1 : keys[sort](place, index)));
        places.sort((a, b) => values[b] - values[a] || a - b);
      }
      orders.set(called, places);
    }
    return orders.get(called);
  }
  let lower;
  function choose() {
    const text = at("search").value.trim().toLowerCase();
    const letter = at("status").value[0], index = Number(at("class").value);
    if (text) lower ??= names.map((name) => name.toLowerCase());
    const pixels = facts[index]?.[PIXELS];
    shown = order(at("sort").value, index).filter((place) =>
      (!letter || status[place] === letter) && (!pixels || pixels[place] > 0) && (!text || lower[place].includes(text)));
    if (state.reverse) shown.reverse();
    state.page = 0;
    draw();
  }

  // ---- cards
  function img(source, text, extra = "") {
    const made = node("img", { src: source, alt: text, loading: "lazy", decoding: "async", class: extra });
    made.addEventListener("error", () => made.remove());
    return made;
  }
  function pane(main, text, under) {
    return node("span", { class: "pane" }, img(main, text), under ? img(under, "", "under fade") : null);
  }
  function panes(record) {
    const { overlay, image, scores } = sources(record);
    const name = record.name;
    const all = { overlay: [overlay, `Overlay of ${name}`], image: [image, name], scores: [scores, `Score map of ${name}`] };
    const made = (kind) => (all[kind][0] ? pane(...all[kind]) : null);
    if (state.view === "both") return [made("image"), made("overlay"), made("scores")].filter(Boolean);
    if (state.view === "overlay" && overlay) return [pane(overlay, all.overlay[1], image)];
    return [made(state.view) ?? made("overlay")].filter(Boolean);
  }
  function described(name) {
    const cut = name.lastIndexOf("/") + 1;
    return node("h3", { class: "name" }, cut ? node("span", {}, name.slice(0, cut)) : null, name.slice(cut));
  }
  function chips(record) {
    const all = record.facts.map((f, index) => ({ ...f, ...classes[index] }));
    const some = all.filter((f) => f.pixels > 0);
    const lines = (some.length ? some : all).sort((a, b) => b.pixels - a.pixels || b.present - a.present);
    const made = lines.slice(0, 4).map((f) =>
      node("li", { class: f.pixels ? "" : "absent" }, node("span", {}, swatch(f.colour), f.name),
        node("span", {}, f.pixels ? plural(f.objects, "object") : "not found"),
        node("small", {}, `presence ${share(f.present)}` + (f.pixels ? `, score ${share(f.score)}` : ""))));
    if (lines.length > 4) made.push(node("li", { class: "absent" }, `and ${lines.length - 4} more`));
    return node("ul", { class: "found" }, ...made);
  }
  function doubt(record) {
    const fill = node("i"), text = share(record.uncertainty);
    fill.style.width = text;
    return node("div", { class: "doubt" }, "uncertainty", node("span", { class: "bar", "aria-hidden": "true" }, fill), text);
  }
  function card(record, position) {
    const facts = node("div", { class: "facts" }, described(record.name));
    if (record.status === "failed") {
      facts.append(node("div", {}, node("span", { class: "badge failed" }, "failed")), node("p", { class: "reason" }, record.reason));
      return node("article", { class: "card" }, facts);
    }
    if (record.status === "empty") facts.append(node("div", {}, node("span", { class: "badge" }, "empty: nothing found")));
    facts.append(chips(record), doubt(record));
    const inside = panes(record);
    if (!inside.length) inside.push(node("span", { class: "without" }, "no image written"));
    const shot = node("button", { class: "shot", type: "button", "aria-label": `Open ${record.name}` }, ...inside);
    shot.style.setProperty("--panes", inside.length);
    shot.addEventListener("click", () => open(position));
    return node("article", { class: "card" }, shot, facts);
  }
  function draw() {
    const pages = Math.max(1, Math.ceil(shown.length / PAGE));
    const first = state.page * PAGE, last = Math.min(shown.length, first + PAGE);
    const grid = at("grid");
    grid.classList.toggle("wide", state.view === "both");
    if (shown.length) grid.replaceChildren(...Array.from(shown.slice(first, last), (place, i) => card(record(place), first + i)));
    else {
      const reset = node("button", { type: "button" }, "Show all");
      reset.addEventListener("click", () => { for (const id of ["search", "status"]) at(id).value = ""; at("class").value = "-1"; choose(); });
      grid.replaceChildren(node("div", { class: "nothing" }, node("p", {}, "No image matches."), reset));
    }
    at("count").textContent = shown.length
      ? `${(first + 1).toLocaleString("en")}–${last.toLocaleString("en")} of ${plural(shown.length, "image")}` +
        (shown.length < names.length ? ` (${names.length.toLocaleString("en")} in all)` : "")
      : "";
    at("legend").hidden = !has.scores || (state.view !== "scores" && state.view !== "both");
    at("pager").hidden = pages === 1;
    at("page").value = state.page + 1;
    at("page").max = pages;
    at("where").textContent = `of ${pages.toLocaleString("en")}`;
    at("previous").disabled = state.page === 0;
    at("next").disabled = state.page === pages - 1;
  }
  function turn(to) {
    const last = Math.ceil(shown.length / PAGE) - 1;
    state.page = Math.min(last, Math.max(0, Math.trunc(to) || 0));
    draw();
    at("results").scrollIntoView();
  }

  // ---- one image, large
  const dialog = at("large");
  let opened = 0;
  function open(position) {
    opened = position;
    const seen = record(shown[position]), { overlay, image, scores } = sources(seen), pixels = seen.size_hw[0] * seen.size_hw[1];
    at("large-name").textContent = seen.name;
    const figure = (source, words, path) => source && node("figure", {}, img(source, `${words} of ${seen.name}`),
      node("figcaption", {}, words, path && link(path) ? " · " : null, path && link(path) ? node("a", { href: link(path) }, "full size") : null));
    at("large-panes").replaceChildren(...[
      figure(image, "Image", images === null ? null : `${images}/${seen.name}`),
      figure(overlay, "Overlay", seen.outputs.overlay), figure(scores, "Score map: all classes"),
    ].filter(Boolean));
    at("large-rows").replaceChildren(...seen.facts.map((f, index) => node("tr", {},
      node("th", { scope: "row" }, swatch(classes[index].colour), classes[index].name), node("td", {}, share(f.present)),
      node("td", {}, f.pixels ? share(f.score) : "–"), node("td", {}, f.objects.toLocaleString("en")),
      node("td", {}, f.pixels.toLocaleString("en")), node("td", {}, share(pixels ? f.pixels / pixels : 0)))));
    const size = pixels ? `${seen.size_hw[1]} × ${seen.size_hw[0]} pixels, ` : "";
    at("large-facts").textContent = seen.status === "failed" ? seen.reason : `${size}uncertainty ${share(seen.uncertainty)}`;
    at("large-table").hidden = seen.status === "failed";
    at("large-files").replaceChildren(...Object.entries(seen.outputs).filter(([, path]) => link(path)).flatMap(([kind, path]) =>
      [" · ", node("a", { href: link(path) }, kind)]));
    at("large-previous").disabled = position === 0;
    at("large-next").disabled = position === shown.length - 1;
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
  }
  const step = (by) => { if (shown[opened + by] !== undefined) open(opened + by); };
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  at("large-previous").addEventListener("click", () => step(-1));
  at("large-next").addEventListener("click", () => step(1));
  at("large-close").addEventListener("click", () => dialog.close());

  // ---- tools
  classes.forEach(({ name }, index) => at("class").append(node("option", { value: index }, name)));
  at("class").hidden = classes.length < 2;
  for (const id of ["class", "status", "sort"]) at(id).addEventListener("change", choose);
  let typing;
  at("search").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(choose, 120); });
  at("reverse").addEventListener("click", () => {
    state.reverse = !state.reverse;
    at("reverse").setAttribute("aria-pressed", state.reverse);
    choose();
  });
  at("previous").addEventListener("click", () => turn(state.page - 1));
  at("next").addEventListener("click", () => turn(state.page + 1));
  at("page").addEventListener("change", () => turn(at("page").value - 1));
  const views = [...document.querySelectorAll(".views button")];
  for (const button of views) {
    button.hidden = !has[button.value];
    button.addEventListener("click", () => {
      state.view = button.value;
      for (const each of views) each.setAttribute("aria-pressed", each === button);
      draw();
    });
  }
  if (!has.both) views[0].parentElement.hidden = true;
  document.documentElement.style.setProperty("--ratio", run.ratio);
  choose();
})();
