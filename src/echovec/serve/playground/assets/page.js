// The page: tabs, theme, and what the server is; each tab is a file of its own.
import * as compare from "./compare.js";
import * as map from "./map.js";
import * as rank from "./rank.js";
import * as search from "./search.js";
import { ask, el } from "./ui.js";
import * as use from "./use.js";

const TABS = { compare, rank, search, map, use };
const onShow = {};

function show(name, focus = false) {
  for (const one of Object.keys(TABS)) {
    const tab = document.getElementById(`tab-${one}`);
    const chosen = one === name;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    document.getElementById(one).hidden = !chosen;
    if (chosen && focus) tab.focus();
  }
  history.replaceState(null, "", `#${name}`);
  onShow[name]?.();
}

function tabs() {
  const names = Object.keys(TABS);
  document.querySelector("[role=tablist]").addEventListener("keydown", (event) => {
    const now = names.indexOf(event.target.getAttribute("aria-controls"));
    const next = { ArrowRight: now + 1, ArrowLeft: now - 1, Home: 0, End: names.length - 1 }[event.key];
    if (now < 0 || next === undefined) return;
    event.preventDefault();
    show(names[(next + names.length) % names.length], true);
  });
  for (const name of names) document.getElementById(`tab-${name}`).addEventListener("click", () => show(name));
  window.addEventListener("hashchange", () => { const name = location.hash.slice(1); if (name in TABS) show(name); });
}

function theme() {
  const root = document.documentElement;
  const kept = localStorage.getItem("theme");
  if (kept) root.dataset.theme = kept;
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    localStorage.setItem("theme", root.dataset.theme);
    document.dispatchEvent(new Event("theme"));
  });
}

tabs();
theme();
const first = location.hash.slice(1);
show(first in TABS ? first : "compare");
try {
  const info = await ask("/info");
  const models = [...new Set(info.models.map(({ model }) => model))];
  document.getElementById("server").textContent = `${models.join(", ")} · ${info.models.length} recipes · ${info.version}`;
  for (const [name, tab] of Object.entries(TABS)) {
    tab.start(document.getElementById(name), info, (call) => { onShow[name] = call; });
  }
  onShow[location.hash.slice(1)]?.();
} catch (error) {
  document.getElementById("server").textContent = "no answer";
  document.getElementById("main").prepend(el("p", { class: "alert", role: "alert" }, error.message));
}
document.documentElement.dataset.ready = "true";
