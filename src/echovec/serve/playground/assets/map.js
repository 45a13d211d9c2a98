// Map: the points of the index on a canvas; to point at, walk through, search and zoom into.
import { ask, el, onSend, searchable } from "./ui.js";

const COLOURS = 8;

export function start(panel, info, onShow) {
  if (!searchable(panel, info)) return;
  const form = panel.querySelector("form");
  const canvas = panel.querySelector("canvas");
  const pen = canvas.getContext("2d");
  const state = { points: null, at: null, marked: new Set(), view: null, colours: [] };
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  onShow(async () => {
    if (!state.points) {
      try {
        load(await ask("/playground/points?limit=2000"));
      } catch (error) {
        panel.querySelector(".out").replaceChildren(el("p", { class: "alert", role: "alert" }, error.message));
      }
    }
    draw();
  });

  function load(points) {
    state.points = points;
    panel.querySelector(".plane").hidden = false;
    const more = points.total > points.ids.length ? ` of ${points.total}` : "";
    panel.querySelector(".out").replaceChildren(el("p", { class: "note" }, `${points.ids.length}${more} texts of ${points.name}`));
    form.elements.field.append(el("option", { value: "" }, "nothing"),
      ...Object.keys(points.fields).map((name) => el("option", { value: name }, name)));
    form.elements.field.selectedIndex = Object.keys(points.fields).length ? 1 : 0;
    recolour();
    reset();
  }

  function recolour() {
    const values = state.points.fields[form.elements.field.value];
    const counts = new Map();
    for (const value of values ?? []) counts.set(value, (counts.get(value) ?? 0) + 1);
    const names = [...counts].sort((a, b) => b[1] - a[1]).map(([name]) => name);
    const colour = (name) => { const i = names.indexOf(name); return i < 0 ? "--c0" : i < COLOURS ? `--c${i}` : "--quiet"; };
    state.colours = state.points.ids.map((_, i) => colour(values?.[i]));
    const entry = (name, variable) => { const dot = el("i"); dot.style.background = `var(${variable})`; return el("span", {}, dot, name); };
    panel.querySelector(".legend").replaceChildren(...names.slice(0, COLOURS).map((n, i) => entry(n || "(none)", `--c${i}`)),
      ...(names.length > COLOURS ? [entry("others", "--quiet")] : []));
  }

  function reset() {
    const xs = state.points.xy.map((p) => p[0]);
    const ys = state.points.xy.map((p) => p[1]);
    const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    state.view = { x: (left + right) / 2, y: (low + high) / 2, width: (right - left || 1) * 1.1, height: (high - low || 1) * 1.1 };
    state.marked = new Set();
    draw();
  }

  const place = ([x, y]) => [
    ((x - state.view.x) / state.view.width + 0.5) * canvas.clientWidth,
    (0.5 - (y - state.view.y) / state.view.height) * canvas.clientHeight,
  ];

  function dot(i, radius, ring) {
    const [x, y] = place(state.points.xy[i]);
    pen.beginPath();
    pen.arc(x, y, radius, 0, 2 * Math.PI);
    pen.fillStyle = css(state.colours[i]);
    pen.fill();
    if (ring) { pen.lineWidth = 2; pen.strokeStyle = css("--ink"); pen.stroke(); }
  }

  function draw() {
    if (!state.points || !canvas.clientWidth) return;
    const scale = window.devicePixelRatio || 1;
    canvas.width = canvas.clientWidth * scale;
    canvas.height = canvas.clientHeight * scale;
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    const some = state.marked.size > 0;
    pen.globalAlpha = some ? 0.18 : 0.75;
    state.points.ids.forEach((_, i) => { if (!state.marked.has(i)) dot(i, 3.5, false); });
    pen.globalAlpha = 1;
    state.marked.forEach((i) => dot(i, 5.5, true));
    if (state.at !== null) dot(state.at, 8, true);
  }

  function read(i) {
    state.at = i;
    const text = i === null ? "" : `${state.points.texts[i] ?? "(its text was not kept)"} — ${state.points.ids[i]}`;
    panel.querySelector(".reading").textContent = text;
    draw();
  }

  function mark(wanted) {
    state.marked = new Set(state.points.ids.flatMap((id, i) => (wanted(id, i) ? [i] : [])));
    read(state.marked.size ? [...state.marked][0] : null);
  }

  form.elements.field.addEventListener("change", () => { recolour(); draw(); });
  form.elements.reset.addEventListener("click", () => { form.elements.query.value = ""; read(null); reset(); });
  form.elements.query.addEventListener("input", () => {
    const words = form.elements.query.value.trim().toLowerCase();
    if (state.points) mark((id, i) => words && `${state.points.texts[i] ?? ""} ${id}`.toLowerCase().includes(words));
  });
  onSend(panel, async (data, signal) => {
    if (!data.get("query").trim()) throw new Error("Write a question first.");
    const { hits } = await ask("/playground/search", { query: data.get("query"), k: 20 }, signal);
    const near = new Map(hits.map((hit, rank) => [hit.id, rank]));
    mark((id) => near.has(id));
    const best = state.points.ids.indexOf(hits[0]?.id);
    if (best >= 0) read(best);
    return el("p", { class: "note" }, `${state.marked.size} of the 20 nearest are on the map, ringed`);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.buttons) return pan(event);
    const near = state.points.xy.map((p, i) => { const [x, y] = place(p); return [Math.hypot(x - event.offsetX, y - event.offsetY), i]; });
    const [distance, i] = near.reduce((a, b) => (a[0] <= b[0] ? a : b));
    if (distance < 14 && i !== state.at) read(i);
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const list = state.marked.size ? [...state.marked] : state.points.ids.map((_, i) => i);
    const now = list.indexOf(state.at);
    read(list[(now + step + list.length) % list.length]);
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const factor = Math.exp(event.deltaY / 500);
    state.view.width *= factor;
    state.view.height *= factor;
    draw();
  }, { passive: false });
  function pan(event) {
    state.view.x -= (event.movementX / canvas.clientWidth) * state.view.width;
    state.view.y += (event.movementY / canvas.clientHeight) * state.view.height;
    draw();
  }
  new ResizeObserver(draw).observe(canvas);
  document.addEventListener("theme", draw);
}
