// Small tools of the page: elements, calls to the server, and what a form shows while it waits.

/** An element: el("p", {class: "note"}, "text", child). No text is ever read as HTML. */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("--")) made.style.setProperty(name, value);
    else if (value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

/** A call to the server: the answer's JSON, or an Error with the message that the server gave. */
export async function ask(path, body, signal) {
  const options = body === undefined ? { signal } : {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    signal,
  };
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is it still running?");
  }
  if (answer.ok) return answer.json();
  let said = `The server answered ${answer.status}.`;
  let code = null;
  try {
    ({ message: said, code } = (await answer.json()).error);
  } catch { /* not ours: a proxy's page */ }
  throw Object.assign(new Error(said), { code, status: answer.status });
}

/** Let a form call `work(data, signal)` when it is sent, and show what it returns, or how long it
 *  takes, or what went wrong. A new call ends the one before. */
export function onSend(panel, work) {
  const form = panel.querySelector("form");
  const out = panel.querySelector(".out");
  const button = form.querySelector("button.main");
  let running = null;

  async function send() {
    running?.abort();
    const mine = (running = new AbortController());
    const begun = performance.now();
    button.setAttribute("aria-busy", "true");
    const ticking = setInterval(() => {
      const seconds = Math.round((performance.now() - begun) / 1000);
      if (seconds >= 1) out.replaceChildren(el("p", { class: "wait" }, `computing… ${seconds} s`));
    }, 500);
    try {
      const shown = await work(new FormData(form), mine.signal);
      if (mine === running) out.replaceChildren(...[shown].flat().filter(Boolean));
    } catch (error) {
      if (error.name === "AbortError" || mine !== running) return;
      out.replaceChildren(el("p", { class: "alert", role: "alert" }, error.message));
    } finally {
      clearInterval(ticking);
      if (mine === running) button.removeAttribute("aria-busy");
    }
  }

  form.addEventListener("submit", (event) => { event.preventDefault(); send(); });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); form.requestSubmit(); }
  });
  return send;
}

/** Buttons that fill a form: presets(panel, {name: {field: value}}). */
export function presets(panel, table) {
  const form = panel.querySelector("form");
  const fill = (values) => { for (const [name, value] of Object.entries(values)) form.elements[name].value = value; };
  panel.querySelector(".presets").append(...Object.entries(table).map(([name, values]) => {
    const button = el("button", { type: "button" }, name);
    button.addEventListener("click", () => { fill(values); form.requestSubmit(); });
    return button;
  }));
  fill(Object.values(table)[0]);
}

/** Whether the server has an index that a recipe of it can ask; if not, the panel says the way to one. */
export function searchable(panel, { index }) {
  if (index?.model) return true;
  const lines = index
    ? [el("p", {}, `The index ${index.name} was made by a recipe that is not served here (fingerprint `
        + `${index.fingerprint}). Start the server with that recipe.`)]
    : [el("p", {}, "This server has no index. Make one of your own texts, one a line, and start the server with it:"),
       el("pre", {}, "echovec embed texts.txt -o vectors\nechovec index vectors -o index\nechovec serve --index index")];
  panel.querySelector("form").hidden = true;
  panel.querySelector(".out").replaceChildren(el("div", { class: "missing" }, ...lines));
  return false;
}

export const shown = (number, digits = 3) => number.toFixed(digits).replace("-", "\u2212");
