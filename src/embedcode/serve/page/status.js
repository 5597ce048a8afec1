// The page of `embedcode serve`: what /v1/status tells, every second, and a box to try a text.

import { $, el } from "/elements.js";

const POLL = 1000; // ms
const SVG = "http://www.w3.org/2000/svg";
let model = "";

const number = (value, unit = "") => `${Math.round(value).toLocaleString("en")}${unit}`;
const bytes = (value) => `${(value / 1e6).toFixed(1)} MB`;

function cards(node, values) {
  node.replaceChildren(...values.map(([name, value, className]) => {
    const shown = el("dd", className ? { class: className } : {}, value);
    return el("div", { class: "card" }, el("dt", {}, name), shown);
  }));
}

const row = (...cells) => el("tr", {}, ...cells.map((cell) => el("td", {}, cell)));

function ago(seconds) {
  const [size, unit] = [[86400, "d"], [3600, "h"], [60, "min"]].find(([one]) => seconds >= 2 * one) ?? [1, "s"];
  return `${Math.floor(seconds / size)} ${unit}`;
}

function show(status) {
  model = status.model;
  cards($("model"), [
    ["Name", status.model, "text"],
    ["Space", status.space, "text"],
    ["Engine", status.build || "…", "text"],
    ["State", status.message, status.ready ? "good" : "bad"],
    ["Dimensions", number(status.dimensions)],
    ["Tokens of a text", number(status.max_tokens)],
  ]);
  const asked = status.cache.hits + status.cache.misses;
  cards($("load"), [
    ["Requests under way", number(status.open)],
    ["Tokens a second", number(status.per_second.slice(-10).reduce((sum, one) => sum + one, 0) / 10)],
    ["It can do", number(status.rate)],
    ["From the cache", asked ? `${Math.round((100 * status.cache.hits) / asked)} %` : "–"],
    ["Cache", bytes(status.cache.bytes)],
    ["Engine restarts", number(status.restarts), status.restarts ? "bad" : ""],
    ["Up for", ago(status.uptime)],
  ]);
  const most = Math.max(1, ...status.per_second);
  const points = status.per_second.map((value, i) => `${i},${(38 - (36 * value) / most).toFixed(1)}`);
  $("rate").querySelector("path").setAttribute("d", `M${points.join("L")}`);
  $("rate").setAttribute("aria-label", `Tokens a second in the last minute, at most ${number(most)}`);
  $("lanes").replaceChildren(...status.lanes.map((lane) => row(
    lane.name === "query" ? "queries" : "passages", `${number(lane.waiting)} tokens`, `${number(lane.running)} tokens`,
    number(lane.count), ...["p50", "p95", "p99"].map((share) => (lane.count ? `${lane[share]} ms` : "–")),
  )));
  $("errors").replaceChildren(...status.errors.map((error) => row(
    new Date(error.time * 1000).toLocaleTimeString(), `${error.status}`, error.path, error.message, error.id.slice(0, 12),
  )));
  $("none").hidden = status.errors.length > 0;
  $("to-search").hidden = !status.indexes.length;
}

async function look() {
  try {
    const answer = await fetch("/v1/status");
    if (!answer.ok) throw new Error((await answer.json()).message);
    show(await answer.json());
    $("problem").hidden = true;
  } catch (error) {
    $("problem").textContent = error instanceof TypeError ? "The server does not answer." : error.message;
    $("problem").hidden = false;
  }
  setTimeout(look, document.hidden ? 10 * POLL : POLL);
}

/** A bar for each dimension, up or down from the middle. */
function bars(vector) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${vector.length} 40`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `${vector.length} dimensions`);
  const most = Math.max(...vector.map(Math.abs));
  vector.forEach((value, i) => {
    const bar = document.createElementNS(SVG, "rect");
    const high = (19 * Math.abs(value)) / most;
    for (const [name, size] of [["x", i], ["y", value > 0 ? 20 - high : 20], ["width", 0.8], ["height", high]]) {
      bar.setAttribute(name, `${size}`);
    }
    svg.append(bar);
  });
  return svg;
}

$("try").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = $("text").value || $("text").placeholder;
  const start = performance.now();
  try {
    const body = JSON.stringify({ model, input: text, input_type: $("role").value, truncate: "END" });
    const answer = await fetch("/v1/embeddings", { method: "POST", body });
    const value = await answer.json();
    if (!answer.ok) throw new Error(value.message);
    const [receipt] = value.embedcode.inputs;
    const cut = receipt.truncated ? `, cut from ${number(receipt.tokens)}` : "";
    const line = `${number(receipt.used)} tokens${cut}, ${value.data[0].embedding.length} dimensions, ${(performance.now() - start).toFixed(0)} ms`;
    $("tried").replaceChildren(el("p", {}, line), bars(value.data[0].embedding));
  } catch (error) {
    $("tried").replaceChildren(el("p", { class: "bad" }, error.message));
  }
});

await look();
