// The API of the server, from /openapi.json, with a form for each call.

import { $, el } from "/elements.js";

const SHOWN = 4000; // characters of an answer

const resolve = (schema, all) => (schema?.$ref ? all[schema.$ref.split("/").pop()] : schema);

function kind(schema) {
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.filter((one) => one !== null).join(" | ");
  if (schema.anyOf) return schema.anyOf.map(kind).filter(Boolean).join(" or ");
  if (schema.type === "array") return `list of ${kind(schema.items)}`;
  return [schema.type].flat().filter((one) => one !== "null").join(" or ");
}

function example(schema) {
  const value = {};
  for (const [name, field] of Object.entries(schema.properties)) {
    if (!schema.required?.includes(name) && name !== "query" && name !== "input_type" && name !== "path") continue;
    value[name] = field.enum ? field.enum[0] : name === "input" ? ["close a session"] : name === "query" ? "close a session" : "";
  }
  return JSON.stringify(value, null, 2);
}

function call(path, method, told, all) {
  const node = el("details", {}, el("summary", {}, el("b", {}, `${method.toUpperCase()} ${path}`), ` ${told.summary}`));
  const schema = resolve(told.requestBody?.content["application/json"].schema, all);
  let box;
  if (schema) {
    const body = el("tbody", {});
    for (const [name, field] of Object.entries(schema.properties)) {
      const usual = field.default === undefined ? "" : `default ${JSON.stringify(field.default)}`;
      const wanted = schema.required?.includes(name) ? "required" : usual;
      body.append(el("tr", {}, el("td", {}, el("code", {}, name)), el("td", {}, kind(field)), el("td", {}, wanted)));
    }
    box = el("textarea", { "aria-label": `Body of ${path}`, spellcheck: "false" });
    box.value = example(schema);
    node.append(el("table", {}, body), box);
  }
  const asked = (told.parameters ?? []).filter((one) => one.in === "query" && one.required);
  const query = new URLSearchParams(asked.map((one) => [one.name, one.schema.enum[0]]));
  const place = path.replace(/{(\w+)}/, (_, name) => told.parameters.find((one) => one.name === name).schema.enum[0])
    + (asked.length ? `?${query}` : "");
  const send = el("button", { class: "field", type: "button" }, "Send");
  const answer = el("pre", { hidden: "" });
  send.addEventListener("click", async () => {
    answer.hidden = false;
    try {
      const got = await fetch(place, { method: method.toUpperCase(), body: box?.value });
      let text = await got.text();
      try { text = JSON.stringify(JSON.parse(text), null, 1); } catch { /* no JSON */ }
      answer.textContent = `${got.status} ${got.statusText}\n\n${text.slice(0, SHOWN)}${text.length > SHOWN ? " …" : ""}`;
    } catch {
      answer.textContent = "The server does not answer.";
    }
  });
  node.append(send, answer);
  return node;
}

const told = await (await fetch("/openapi.json")).json();
$("about").textContent = `${told.info.description} Version ${told.info.version}.`;
for (const [path, methods] of Object.entries(told.paths)) {
  for (const [method, one] of Object.entries(methods)) {
    $("calls").append(call(path, method, one, told.components.schemas));
  }
}
