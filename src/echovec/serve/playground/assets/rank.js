// Rank: texts ordered by every recipe, side by side, with what moved.
import { ask, el, onSend, presets, shown } from "./ui.js";

// Triplets of the paper (table 8, "structure 1"): a small model gets the second wrong with every recipe. Then
// two of the toy set of docs/results.md, chosen because one copy gets them wrong; it is not always so.
const EXAMPLES = {
  "From the paper": {
    query: "They play music loudly in the evening, filling their home with energetic beats and vibrant melodies",
    texts: [
      "They play music loudly in the evening, but only soothing classical tunes to relax",
      "In the evenings, they blast tunes, their house resonating with lively rhythms and bright harmonies",
      "She collects antique vases, adoring their unique designs and historical significance",
    ].join("\n"),
  },
  "From the paper, harder": {
    query: "She loves to travel in summer, especially to cold destinations, avoiding hot and crowded places",
    texts: [
      "She loves to travel in summer, but prefers to visit hot and bustling tourist spots",
      "In summer, she adores traveling, specifically to chilly locations, steering clear of warm, populous areas",
      "The children eagerly await winter, dreaming of snowball fights and building snowmen",
    ].join("\n"),
  },
  "Which lesson?": {
    query: "The pupils loved the lesson on volcanoes and violent earthquakes",
    texts: [
      "The pupils loved the lesson on commas and full stops",
      "The students enjoyed the lesson about volcanoes and strong earthquakes",
      "Children in class adored the session about eruptions and seismic shocks",
      "He gave up eating meat, after a warning from his doctor",
    ].join("\n"),
  },
  "Why does he sell it there?": {
    query: "The farmer sells his milk to the cheese maker next door because the big dairy pays him late and too little",
    texts: [
      "The farmer sells his milk to the cheese maker next door because his daughter is going to marry the owner's son",
      "The farmer sells the milk to the cheese maker next to him as the big dairy pays too little and too late",
      "What his cows give goes to a neighbour who produces cheddar as the large creamery is slow and stingy with its money",
    ].join("\n"),
  },
  "A question": {
    query: "how do I stop a running process?",
    texts: [
      "Killing a job: send it a signal with kill and its number",
      "How do I start a process when the machine boots?",
      "How to stop running when your knees hurt",
      "The process of running a marathon",
      "End a program with Ctrl-C",
    ].join("\n"),
  },
};

export function start(panel, info) {
  presets(panel, EXAMPLES);
  onSend(panel, async (data, signal) => {
    const texts = data.get("texts").split("\n").map((line) => line.trim()).filter(Boolean);
    if (!texts.length) throw new Error("Give at least one text, one a line.");
    const models = [...info.models].sort((a, b) => (b.id === "classical") - (a.id === "classical"));
    const ranked = await Promise.all(models.map(async ({ id }) =>
      [id, await ask("/rerank", { query: data.get("query"), texts, model: id }, signal)]));
    const base = new Map(ranked[0][1].map((hit, place) => [hit.index, place]));
    return el("div", { class: "columns" }, ...ranked.map(([id, hits], column) => el("div", { class: "column" },
      el("h3", {}, id),
      el("ol", {}, ...hits.map((hit, place) => el("li", {},
        column ? moved(base.get(hit.index) - place) : el("span", { class: "move same" }, `${place + 1}`),
        el("span", {}, texts[hit.index], el("span", { class: "score number" }, shown(hit.score)))))))));
  });
}

function moved(places) {
  if (!places) return el("span", { class: "move same", "aria-label": "not moved" }, "=");
  const word = places > 0 ? "up" : "down";
  const by = Math.abs(places);
  return el("span", { class: `move ${word}`, "aria-label": `${word} by ${by}` }, `${places > 0 ? "▲" : "▼"} ${by}`);
}
