// Use it: code to copy, with this server's address and the chosen model.
import { el } from "./ui.js";

const SNIPPETS = {
  curl: (at, model) => `curl ${at}/v1/embeddings \\
  -H 'content-type: application/json' \\
  -d '{"model": "${model}", "input": ["a text", "another"]}'`,
  "openai (Python)": (at, model) => `from openai import OpenAI

client = OpenAI(base_url="${at}/v1", api_key="the server's key, or anything")
answer = client.embeddings.create(model="${model}", input=["a text", "another"])
vectors = [row.embedding for row in answer.data]`,
  LangChain: (at, model) => `from langchain_openai import OpenAIEmbeddings

embeddings = OpenAIEmbeddings(
    model="${model}",
    base_url="${at}/v1",
    api_key="the server's key, or anything",
    check_embedding_ctx_length=False,  # send texts, not ids of another vocabulary
)
vectors = embeddings.embed_documents(["a text", "another"])`,
  "Python, without a server": (_, model, recipe) => {
    const role = model.split(":")[1];
    return `from echovec import Embedder

model = Embedder.load(recipe="${recipe}")
vectors = model.encode${role ? `_${role}` : ""}(["a text", "another"])`;
  },
};

export function start(panel, info) {
  const form = panel.querySelector("form");
  form.elements.model.append(...info.models.map(({ id }) => el("option", {}, id)));
  form.addEventListener("change", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  show();

  function show() {
    const role = form.elements.role.value;
    const served = info.models.find(({ id }) => id === form.elements.model.value);
    const model = served.id + (role ? `:${role}` : "");
    panel.querySelector(".out").replaceChildren(...Object.entries(SNIPPETS).map(([name, write]) => {
      const code = write(window.location.origin, model, served.recipe);
      const button = el("button", { type: "button", class: "copy", "aria-label": `Copy ${name}` }, "Copy");
      button.addEventListener("click", () => copy(button, code));
      return el("div", { class: "code" }, el("h3", {}, name), button, el("pre", { tabindex: "0" }, el("code", {}, code)));
    }));
  }
}

async function copy(button, code) {
  try {
    await navigator.clipboard.writeText(code);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Select it and press Ctrl-C";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
}
