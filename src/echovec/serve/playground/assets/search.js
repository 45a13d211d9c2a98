// Search: rows of the server's index near a question.
import { ask, el, onSend, searchable, shown } from "./ui.js";

export function start(panel, info) {
  if (!searchable(panel, info)) return;
  onSend(panel, async (data, signal) => {
    const body = { query: data.get("query"), k: Number(data.get("k")) };
    const { hits } = await ask("/playground/search", body, signal);
    return hitList(hits);
  });
}

export function hitList(hits) {
  return el("ol", { class: "hits" }, ...hits.map((hit) => el("li", {},
    el("span", { class: "number" }, shown(hit.score)),
    el("span", {}, hit.text ?? "(its text was not kept)", el("span", { class: "id" }, hit.id)))));
}
