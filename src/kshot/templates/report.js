"use strict";
(() => {
  const PAGE = 48;
  const { classes, pictures, records } = JSON.parse(document.getElementById("run").textContent);
  const embeds = JSON.parse(document.getElementById("embeds").textContent);
  const collator = new Intl.Collator(undefined, { numeric: true });
  const at = (id) => document.getElementById(id);
  const state = { view: "overlay", reverse: false, page: 0 };
  let shown = [];

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
  function sources(record) {
    const [overlay, picture, heat] = embeds[record.e] ?? [];
    const outputs = record.o ?? {};
    return {
      overlay: overlay ?? (outputs.overlay ? link(outputs.overlay) : null),
      picture: picture ?? (pictures !== null && record.s !== "failed" ? link(`${pictures}/${record.n}`) : null),
      scores: heat ?? null,
    };
  }

  // ---- choosing and ordering
  const fact = (record, index, place) =>
    index >= 0 ? (record.c?.[index][place] ?? 0)
      : (record.c ?? []).reduce((best, f) => (place === 1 ? best + f[1] : Math.max(best, f[place])), 0);
  const area = (record, index) => fact(record, index, 1) / (record.w ? record.w[0] * record.w[1] : 1);
  const keys = {
    uncertainty: (r) => (r.s === "failed" ? 2 : r.u),
    area: (r, index) => (r.s === "failed" ? -1 : area(r, index)),
    presence: (r, index) => (r.s === "failed" ? -1 : fact(r, index, 0)),
  };
  function choose() {
    const text = at("search").value.trim().toLowerCase();
    const status = at("status").value, index = Number(at("class").value), sort = at("sort").value;
    shown = records.filter((r) =>
      (!status || r.s === status) && (index < 0 || (r.c?.[index][1] ?? 0) > 0) && (!text || r.n.toLowerCase().includes(text)));
    if (sort === "name") shown.sort((a, b) => collator.compare(a.n, b.n));
    else {
      const value = new Map(shown.map((r) => [r, keys[sort](r, index)]));
      shown.sort((a, b) => value.get(b) - value.get(a) || collator.compare(a.n, b.n));
    }
    if (state.reverse) shown.reverse();
    state.page = 0;
    draw();
  }

  // ---- cards
  function image(source, text, extra = "") {
    const made = node("img", { src: source, alt: text, loading: "lazy", decoding: "async", class: extra });
    made.addEventListener("error", () => made.remove());
    return made;
  }
  function pane(main, text, under) {
    return node("span", { class: "pane" }, image(main, text), under ? image(under, "", "under fade") : null);
  }
  function panes(record) {
    const { overlay, picture, scores } = sources(record);
    const name = record.n;
    const all = { overlay: [overlay, `Overlay of ${name}`], picture: [picture, name], scores: [scores, `Score map of ${name}`] };
    const made = (kind) => (all[kind][0] ? pane(...all[kind]) : null);
    if (state.view === "both") return [made("picture"), made("overlay"), made("scores")].filter(Boolean);
    if (state.view === "overlay" && overlay) return [pane(overlay, all.overlay[1], picture)];
    return [made(state.view) ?? made("overlay")].filter(Boolean);
  }
  function described(name) {
    const cut = name.lastIndexOf("/") + 1;
    return node("h3", { class: "name" }, cut ? node("span", {}, name.slice(0, cut)) : null, name.slice(cut));
  }
  function chips(record) {
    const all = record.c.map((f, index) => ({ f, ...classes[index] }));
    const some = all.filter(({ f }) => f[1] > 0);
    const lines = (some.length ? some : all).sort((a, b) => b.f[1] - a.f[1] || b.f[0] - a.f[0]);
    const made = lines.slice(0, 4).map(({ f, name, colour }) =>
      node("li", { class: f[1] ? "" : "absent" }, node("span", {}, swatch(colour), name),
        node("span", {}, f[1] ? plural(f[2], "region") : "not found"),
        node("small", {}, `presence ${share(f[0])}` + (f[1] ? `, score ${share(f[3])}` : ""))));
    if (lines.length > 4) made.push(node("li", { class: "absent" }, `and ${lines.length - 4} more`));
    return node("ul", { class: "found" }, ...made);
  }
  function doubt(record) {
    const fill = node("i");
    fill.style.width = share(record.u);
    return node("div", { class: "doubt" }, "uncertainty", node("span", { class: "bar", "aria-hidden": "true" }, fill), share(record.u));
  }
  function card(record, place) {
    const facts = node("div", { class: "facts" }, described(record.n));
    if (record.s === "failed") {
      facts.append(node("div", {}, node("span", { class: "badge failed" }, "failed")), node("p", { class: "reason" }, record.r));
      return node("article", { class: "card" }, facts);
    }
    if (record.s === "empty") facts.append(node("div", {}, node("span", { class: "badge" }, "empty: nothing found")));
    facts.append(chips(record), doubt(record));
    const inside = panes(record);
    if (!inside.length) inside.push(node("span", { class: "without" }, "no picture written"));
    const shot = node("button", { class: "shot", type: "button", "aria-label": `Open ${record.n}` }, ...inside);
    shot.style.setProperty("--panes", inside.length);
    shot.addEventListener("click", () => open(place));
    return node("article", { class: "card" }, shot, facts);
  }
  function draw() {
    const pages = Math.max(1, Math.ceil(shown.length / PAGE));
    const first = state.page * PAGE, last = Math.min(shown.length, first + PAGE);
    const grid = at("grid");
    grid.classList.toggle("wide", state.view === "both");
    if (shown.length) grid.replaceChildren(...shown.slice(first, last).map((r, i) => card(r, first + i)));
    else {
      const reset = node("button", { type: "button" }, "Show all");
      reset.addEventListener("click", () => { for (const id of ["search", "status"]) at(id).value = ""; at("class").value = "-1"; choose(); });
      grid.replaceChildren(node("div", { class: "nothing" }, node("p", {}, "No image matches."), reset));
    }
    at("count").textContent = shown.length
      ? `${(first + 1).toLocaleString("en")}–${last.toLocaleString("en")} of ${plural(shown.length, "image")}` +
        (shown.length < records.length ? ` (${records.length.toLocaleString("en")} in all)` : "")
      : "";
    at("legend").hidden = state.view !== "scores" && state.view !== "both";
    at("pager").hidden = pages === 1;
    at("where").textContent = `Page ${state.page + 1} of ${pages.toLocaleString("en")}`;
    at("previous").disabled = state.page === 0;
    at("next").disabled = state.page === pages - 1;
  }
  function turn(by) {
    state.page += by;
    draw();
    at("results").scrollIntoView();
  }

  // ---- one image, large
  const dialog = at("large");
  let opened = 0;
  function open(place) {
    opened = place;
    const record = shown[place], { overlay, picture, scores } = sources(record), outputs = record.o ?? {};
    at("large-name").textContent = record.n;
    const figure = (source, words, path) => source && node("figure", {}, image(source, `${words} of ${record.n}`),
      node("figcaption", {}, words, path && link(path) ? " · " : null, path && link(path) ? node("a", { href: link(path) }, "full size") : null));
    at("large-panes").replaceChildren(...[
      figure(picture, "Picture", pictures === null ? null : `${pictures}/${record.n}`),
      figure(overlay, "Overlay", outputs.overlay), figure(scores, "Score map: all classes"),
    ].filter(Boolean));
    at("large-rows").replaceChildren(...(record.c ?? []).map((f, index) => node("tr", {},
      node("th", { scope: "row" }, swatch(classes[index].colour), classes[index].name), node("td", {}, share(f[0])),
      node("td", {}, f[1] ? share(f[3]) : "–"), node("td", {}, f[2].toLocaleString("en")), node("td", {}, f[1].toLocaleString("en")),
      node("td", {}, share(record.w ? f[1] / (record.w[0] * record.w[1]) : 0)))));
    const size = record.w ? `${record.w[1]} × ${record.w[0]} pixels, ` : "";
    at("large-facts").textContent = record.s === "failed" ? record.r : `${size}uncertainty ${share(record.u)}`;
    at("large-table").hidden = record.s === "failed";
    at("large-files").replaceChildren(...Object.entries(outputs).filter(([, path]) => link(path)).flatMap(([kind, path]) =>
      [" · ", node("a", { href: link(path) }, kind)]));
    at("large-previous").disabled = place === 0;
    at("large-next").disabled = place === shown.length - 1;
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
  }
  const step = (by) => { if (shown[opened + by]) open(opened + by); };
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
  at("previous").addEventListener("click", () => turn(-1));
  at("next").addEventListener("click", () => turn(1));
  const views = [...document.querySelectorAll(".views button")];
  const has = { overlay: true, picture: pictures !== null, scores: embeds.some((e) => e[2]) };
  has.both = has.picture || has.scores;
  for (const button of views) {
    button.hidden = !has[button.value];
    button.addEventListener("click", () => {
      state.view = button.value;
      for (const each of views) each.setAttribute("aria-pressed", each === button);
      draw();
    });
  }
  if (!has.both) views[0].parentElement.hidden = true;
  const ratios = records.filter((r) => r.w).map((r) => r.w[1] / r.w[0]).sort((a, b) => a - b);
  const typical = ratios[ratios.length >> 1] ?? 4 / 3;
  document.documentElement.style.setProperty("--ratio", Math.min(1.8, Math.max(0.8, typical)).toFixed(3));
  choose();
})();
