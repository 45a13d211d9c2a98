// Compare: the cosine of two texts under every recipe, and the heat map of both copies.
import { ask, el, onSend, presets, shown } from "./ui.js";

// The first two are from the paper (table 8, "structure 1"), the others from the toy set of docs/results.md.
const PAPER = "They play music loudly in the evening, filling their home with energetic beats and vibrant melodies";
const EXAMPLES = {
  "From the paper: other ending": {
    left: PAPER,
    right: "They play music loudly in the evening, but only soothing classical tunes to relax",
  },
  "From the paper: same meaning": {
    left: PAPER,
    right: "In the evenings, they blast tunes, their house resonating with lively rhythms and bright harmonies",
  },
  "Same beginning, other ending": {
    left: "The pupils loved the lesson on volcanoes and violent earthquakes",
    right: "The pupils loved the lesson on commas and full stops",
  },
  "Other words, same meaning": {
    left: "The pupils loved the lesson on volcanoes and violent earthquakes",
    right: "Children in class adored the session about eruptions and seismic shocks",
  },
  "Same words, same meaning": {
    left: "He gave up eating meat, after a warning from his doctor",
    right: "He has stopped eating meat, following a warning by his doctor",
  },
  "Nothing in common": {
    left: "He gave up eating meat, after a warning from his doctor",
    right: "The volcano had been silent for nine hundred years",
  },
};

export function start(panel, info) {
  presets(panel, EXAMPLES);
  const send = onSend(panel, async (data, signal) => {
    const [left, right] = [data.get("left"), data.get("right")];
    const cosines = await Promise.all(info.models.map(async (model) => {
      const body = { inputs: { source_sentence: left, sentences: [right] }, parameters: { model: model.id } };
      return [model.id, (await ask("/similarity", body, signal))[0]];
    }));
    let heat;
    try {
      heat = heatMap(await ask("/playground/tokens", { left, right }, signal));
    } catch (error) {
      if (error.code !== "no_echo") throw error;
      heat = [el("p", { class: "note" }, error.message)];
    }
    return [...bars(cosines), ...heat];
  });
  send();
}

function bars(cosines) {
  const rows = cosines.flatMap(([name, cosine]) => [
    el("span", {}, name),
    el("span", { class: "track" }, el("div", { class: "fill", "--share": Math.max(0, cosine) })),
    el("span", { class: "number" }, shown(cosine)),
  ]);
  return [
    el("h2", {}, "Cosine of A and B"),
    el("div", { class: "bars" }, ...rows),
    el("p", { class: "note" }, "Recipes do not share a scale: what counts is how one recipe ranks several texts (see Rank)."),
  ];
}

function heatMap({ model, texts, shared }) {
  const all = texts.flatMap((text) => [...text.first, ...text.second]);
  // One token far off would leave the others alike: the colours begin at the tenth of them.
  const sorted = [...all].sort((a, b) => a - b);
  const [low, high] = [sorted[Math.floor(sorted.length / 10)], sorted[sorted.length - 1]];
  const share = (value) => (high > low ? Math.max(0, (value - low) / (high - low)) : 0);
  const row = (text, copy) => el("div", { class: "copy-row" },
    el("span", { class: "which" }, copy === "first" ? "first copy" : "second copy"),
    el("span", { class: "tokens" }, ...text.tokens.map((token, place) =>
      el("span", { class: "token", "--v": share(text[copy][place]), title: shown(text[copy][place]) }, token))));
  const names = ["A", "B"];
  return [
    el("h2", {}, "How near each token is to the other text"),
    el("p", { class: "scale" }, `${shown(low, 2)} or less`, el("i"), el("span", {}, shown(high, 2)), el("span", {}, `cosine, under ${model}`)),
    ...texts.map((text, place) => el("div", { class: "heat" },
      el("h3", {}, `Text ${names[place]}, against text ${names[1 - place]}`),
      row(text, "first"), row(text, "second"), numbers(text))),
    said(shared),
  ];
}

function numbers(text) {
  const rows = text.tokens.map((token, place) => el("tr", {},
    el("td", {}, token),
    ...[text.first[place], text.second[place], text.second[place] - text.first[place]]
      .map((value) => el("td", { class: "number" }, shown(value)))));
  const heads = ["token", "first copy", "second copy", "gained"].map((name) => el("th", {}, name));
  return el("details", {}, el("summary", {}, "Numbers"),
    el("table", {}, el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...rows)));
}

function said(shared) {
  if (!shared) return null;
  const tokens = shared.count === 1 ? "token is" : `${shared.count} tokens are`;
  return el("p", { class: "note" },
    `The first ${tokens} the same in both texts. In the first copy they are the same to the model too: their `
    + `cosine across the texts is ${shown(shared.first)}. In the second copy it is ${shown(shared.second)}: they have read the endings.`);
}
