// The interface, written out from /openapi.json: routes, fields, answers.
import { ask, el } from "./ui.js";

const main = document.getElementById("main");
try {
  const api = await ask("/openapi.json");
  const groups = new Map();
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const group = operation.tags?.[0] ?? "Server";
      groups.set(group, [...(groups.get(group) ?? []), route(api, path, method, operation)]);
    }
  }
  main.append(el("p", { class: "lead" }, `${api.info.summary} Every error is {"error": {"message", "type", "param", "code"}}.`),
    ...[...groups].flatMap(([name, routes]) => [el("h2", {}, name), ...routes]));
} catch (error) {
  main.append(el("p", { class: "alert", role: "alert" }, error.message));
}
document.documentElement.dataset.ready = "true";

function route(api, path, method, operation) {
  const body = operation.requestBody?.content["application/json"].schema;
  return el("div", { class: "route" },
    el("h3", {}, el("span", { class: "method" }, method.toUpperCase()), el("code", {}, path)),
    el("p", { class: "note" }, operation.description ?? ""),
    ...(body ? [fields(api, resolve(api, body))] : []));
}

function fields(api, schema) {
  const rows = Object.entries(schema.properties ?? {}).map(([name, field]) => el("tr", {},
    el("td", {}, el("code", {}, name), (schema.required ?? []).includes(name) ? " *" : ""),
    el("td", {}, kind(api, field)),
    el("td", {}, field.default === undefined || field.default === null ? "" : el("code", {}, JSON.stringify(field.default))),
    el("td", {}, field.description ?? "")));
  const heads = ["field", "is", "default", "meaning"].map((name) => el("th", {}, name));
  return el("div", { class: "table" }, el("table", {}, el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...rows)));
}

function resolve(api, schema) {
  return schema.$ref ? api.components.schemas[schema.$ref.split("/").pop()] : schema;
}

function kind(api, field) {
  const one = resolve(api, field);
  if (one.anyOf) return [...new Set(one.anyOf.map((each) => kind(api, each)).filter((each) => each !== "null"))].join(", or ") || "null";
  if (one.enum) return one.enum.join(" | ");
  if (one.const !== undefined) return JSON.stringify(one.const);
  if (one.type === "array") return `list of ${kind(api, one.items ?? {})}`;
  return one.type ?? "anything";
}
