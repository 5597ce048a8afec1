// The page of `embedcode web`, and of `embedcode serve` at /search.

import { $, el, parts, put, spell } from "/elements.js";
import { Problem, ask, store } from "/server.js";
import { count, rows, why } from "/signals.js";

const TYPING = 120; // ms without a key before what was typed is searched: a search takes less
const POLL = 1500; // ms between looks at an index that is being made
const ROWS = 100; // lines in a block that a browser skips while it is out of sight

// ---- state: what is asked and shown, kept in the address ----

const EMPTY = {
  kind: "text", q: "", code: "", lang: [], content: [], repo: [], path: "", since: "", mode: "hybrid", k: "10",
  related: "", // path:line, in place of a query
  file: "", // path:line or path:first-last, shown beside the hits
  index: "", // which repository, where the server has several
};
const MENUS = ["lang", "content", "repo"];
const FILTERS = [...MENUS, "path", "since"];
let state = EMPTY;
let typing = false; // all that is typed until Enter is one entry of the history

function fromAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const read = ([name, usual]) => [name, Array.isArray(usual) ? given.getAll(name) : given.get(name) ?? usual];
  return Object.fromEntries(Object.entries(EMPTY).map(read));
}

function address(of) {
  const given = new URLSearchParams();
  for (const [name, usual] of Object.entries(EMPTY)) {
    if (Array.isArray(usual)) of[name].forEach((value) => given.append(name, value));
    else if (of[name] !== usual) given.set(name, of[name]);
  }
  return `#${given}`;
}

function change(changes, push = true) {
  state = { ...state, ...changes };
  if (address(state) !== (location.hash || "#")) history[push ? "pushState" : "replaceState"](null, "", address(state));
}

/** What is in the boxes now, which is not yet what was asked last. */
function take() {
  const [q, code] = [$("q").value, $("code").value];
  if (q === state.q && code === state.code) return;
  change({ q, code, file: "" }, !typing && address(state) !== "#");
  typing = true;
  leave();
}

function place(text) {
  const [, path, first, last = first] = text.match(/^(.*):(\d+)(?:-(\d+))?$/s) ?? [null, text, "1"];
  return { path, first: +first || 1, last: +last || 1 };
}

// ---- searching ----

let asking = null; // the AbortController of the newest search; what an older one brings is dropped
let asked = null; // what the hits on the screen are an answer to
let answer = null;
let timer = 0; // of what was typed, or of an index that was not ready

function request(typed) {
  const where = {
    paths: state.path.split(/,(?![^{}]*\})/).map((glob) => glob.trim()).filter(Boolean),
    languages: state.lang, content: state.content, repos: state.repo, top_k: +state.k, highlight: true, index: state.index,
  };
  if (state.related) {
    const { path, first } = place(state.related);
    return ["/v1/search/related", { path, line: first, ...where }];
  }
  const query = state.kind === "code" ? "" : state.q;
  const code = state.kind === "text" ? "" : state.code;
  if (!query.trim() && !code.trim()) return [null, null];
  return ["/v1/search", { query, code, since: state.since, mode: state.mode, update: !typed, ...where }];
}

const key = (path, body) => JSON.stringify([path, { ...body, update: true }]);

async function search(typed = false) {
  clearTimeout(timer);
  asking?.abort();
  const mine = (asking = new AbortController());
  const [path, body] = request(typed);
  asked = key(path, body);
  if (!path) {
    show(null);
    return false;
  }
  const waiting = setTimeout(() => $("list").classList.add("waiting"), 200);
  const start = performance.now();
  try {
    const found = await ask(path, body, mine.signal);
    if (mine !== asking) return false;
    show(found, performance.now() - start);
    return true;
  } catch (error) {
    if (mine !== asking) return false;
    if (error.status !== 503) show(null);
    fail(error);
    if (error.wait) timer = setTimeout(search, 1000 * error.wait, typed);
    return false;
  } finally {
    clearTimeout(waiting);
    if (mine === asking) $("list").classList.remove("waiting");
  }
}

function fail(error) {
  if (!(error instanceof Problem)) throw error;
  const later = error.status === 503; // not wrong, only not yet: it is asked again
  $("intro").hidden = true;
  $("problem").classList.toggle("dim", later);
  $("problem").setAttribute("role", later ? "status" : "alert");
  $("problem").hidden = false;
  // What stands there already would be read aloud again.
  if ($("problem").textContent !== spell(error.message)) put($("problem"), error.message);
}

function show(found, ms) {
  const hits = found?.hits ?? [];
  const same = JSON.stringify(hits) === JSON.stringify(answer?.hits ?? []); // as after Enter: nothing moves then
  answer = found;
  $("problem").hidden = true;
  $("intro").hidden = Boolean(found);
  $("summary").hidden = !found;
  if (!same) {
    const inside = $("list").contains(document.activeElement);
    $("hits").replaceChildren(...hits.map(hit));
    $("list").scrollTop = 0;
    select(Math.max(0, hits.findIndex((one) => state.file === placeOf(one))), inside);
  }
  if (!found) return put($("said"), "");
  const told = (end) => (hits.length ? [count(hits.length, "hit") + end] : []); // else a note says more
  // How much has vectors is said by the progress, which goes on while this is read.
  const notes = found.notes.filter((note) => !note.includes("has vectors"));
  const sentences = notes.map((note) => `${note[0].toUpperCase()}${note.slice(1)}.`);
  put($("said"), [...told("."), ...sentences].join(" "));
  $("summary").replaceChildren(...[...told(` in ${Math.round(ms)} ms`), ...sentences].map((text) => el("p", {}, text)));
  const { chunks, embedded } = found.indexed;
  if (chunks !== known?.chunks || embedded !== known.embedded) watch();
}

const placeOf = (one) => `${one.path}:${one.start_line}-${one.end_line}`;

function hit(one, i) {
  const slash = one.path.lastIndexOf("/") + 1;
  const lines = one.end_line > one.start_line ? `${one.start_line}–${one.end_line}` : `${one.start_line}`;
  const link = el("a", { href: address({ ...state, file: placeOf(one) }) },
    ...parts(one.path.slice(0, slash)), el("wbr", {}), el("b", {}, one.path.slice(slash)), el("span", { class: "dim" }, `:${lines}`));
  const tools = el("span", { class: "tools" },
    el("button", { class: "plain", title: "Copy path:line (c)", "data-act": "copy" }, "Copy"),
    el("button", { class: "plain", title: "Code like this (r)", "data-act": "related" }, "Related"),
    el("span", { class: "lang" }, one.language));
  const about = el("div", { class: "about" });
  if (one.symbol) about.append(el("span", { class: "symbol" }, one.symbol));
  about.append(el("span", { class: "why" }, ...one.why.map(why)));
  const [first, last] = one.excerpt.map((number) => number - one.start_line);
  const code = el("div", { class: "code" }, ...rows(one.lines.slice(first, last + 1), one.start_line + first));
  const node = el("li", { class: "hit", "data-i": `${i}` }, el("div", { class: "head" }, link, tools), about, code);
  const rest = one.lines.length - (last - first + 1);
  if (rest) node.append(el("button", { class: "more", "data-act": "more" }, count(rest, "more line")));
  return node;
}

// ---- the selected hit ----

let selected = 0;

function select(i, focus = false) {
  const all = [...$("hits").children];
  if (!all.length) return;
  selected = Math.min(Math.max(i, 0), all.length - 1);
  all.forEach((node, at) => {
    const is = at === selected;
    node.setAttribute("aria-current", String(is));
    // One stop of the tab key for the list; inside, only what belongs to the selected hit.
    node.tabIndex = is ? 0 : -1;
    for (const inner of node.querySelectorAll("a, button, [data-tip]")) inner.tabIndex = is ? 0 : -1;
  });
  if (!focus) return;
  all[selected].focus({ preventScroll: true });
  all[selected].scrollIntoView({ block: "nearest" });
}

function expand(node) {
  const one = answer.hits[node.dataset.i];
  node.querySelector(".code").replaceChildren(...rows(one.lines, one.start_line));
  const button = node.querySelector(".more");
  if (document.activeElement === button) node.focus();
  button?.remove();
}

function relate(where) {
  take();
  change({ related: where, file: "" });
  load();
}

async function copy(place) {
  const text = spell(place); // a line break in a name would run what follows, in a shell
  try {
    await navigator.clipboard.writeText(text);
    toast(`Copied ${text}`);
  } catch {
    toast(text);
  }
}

function toast(text) {
  put($("toast"), text);
  put($("said"), text);
  $("toast").hidden = false;
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => ($("toast").hidden = true), 2000);
}

// ---- the file beside the hits ----

let opened = null; // { path, query, total }: whose lines are there
let opening = null;
let line = 0;

function open(where, { push = true, focus = false } = {}) {
  take();
  change({ file: where }, push);
  return view(focus);
}

async function view(focus) {
  opening?.abort();
  opening = null;
  const { file: where, index } = state;
  if (!where) return leave();
  const { path, first, last } = place(where);
  const query = state.related || state.kind === "code" ? "" : state.q;
  const mine = (opening = new AbortController());
  const late = () => mine !== opening || where !== state.file; // another is asked for by now, or none
  try {
    if (opened?.path !== path || opened.query !== query || opened.index !== index) {
      const file = await ask("/v1/search/file", { path, query, index }, mine.signal);
      if (late()) return;
      opened = { path, query, index, total: file.lines.length };
      fill(file);
    }
  } catch (error) {
    if (late()) return;
    if (!(error instanceof Problem)) throw error;
    leave();
    return toast(error.message);
  }
  $("file").hidden = false;
  for (const row of $("text").querySelectorAll(".in")) row.classList.remove("in");
  for (let at = first; at <= Math.min(last, opened.total); at++) rowOf(at).classList.add("in");
  go(first, last - first < 20 ? "center" : "start");
  // Who went to the box while it was read types there: letters would be keys.
  if (focus && !$("form").contains(document.activeElement)) $("text").focus({ preventScroll: true });
}

function fill(file) {
  put($("name"), file.path);
  put($("about"), `${count(file.lines.length, "line")}${file.language === "text" ? "" : ` of ${file.language}`}`);
  $("changed").hidden = !file.changed;
  const all = rows(file.lines, 1);
  const blocks = [];
  for (let at = 0; at < all.length; at += ROWS) {
    const block = el("div", { class: "block" }, ...all.slice(at, at + ROWS));
    block.style.containIntrinsicSize = `auto 40em auto ${20 * block.childElementCount}px`;
    blocks.push(block);
  }
  $("text").replaceChildren(...blocks);
}

const rowOf = (at) => $("text").children[Math.floor((at - 1) / ROWS)].children[(at - 1) % ROWS];

function go(to, block = "nearest") {
  $("text").querySelector(".at")?.classList.remove("at");
  line = Math.min(Math.max(to, 1), opened.total);
  rowOf(line).classList.add("at");
  rowOf(line).scrollIntoView({ block, inline: "nearest" });
}

function leave() {
  const inside = $("file").contains(document.activeElement);
  $("file").hidden = true;
  opened = null;
  $("text").replaceChildren();
  if (inside) select(selected, true);
}

function close() {
  change({ file: "" });
  leave();
}

// ---- the index ----

let watching = 0;
let known = null; // the last status
let lost = false; // whether the last look failed, and that is what the page says
let began = null; // the first look at vectors that are being made: for the time that is left

async function watch() {
  clearTimeout(watching);
  const { index } = state;
  try {
    const status = await ask(`/v1/search/status?${new URLSearchParams({ index })}`);
    if (index !== state.index) return;
    known = { ...status, index };
  } catch (error) {
    clearTimeout(watching);
    const refused = error.status >= 400 && error.status < 500 && error.status !== 429; // for good
    if (!refused && !document.hidden) watching = setTimeout(watch, POLL);
    lost = !answer;
    if (lost) fail(error);
    return;
  }
  if (lost) [$("problem").hidden, $("intro").hidden, lost] = [true, Boolean(answer), false];
  tell(known);
  const busy = known.reading || known.embedded < known.chunks;
  clearTimeout(watching); // of another look that was under way
  if (busy && !document.hidden) watching = setTimeout(watch, POLL);
}

function tell(status) {
  const name = status.root.split(/[/\\]/).pop();
  put($("root"), name);
  document.title = `${spell(name)} · embedcode`;
  facets("lang", status.languages);
  facets("content", status.content);
  facets("repo", status.repos);
  const { files, chunks, embedded, reading } = status;
  const busy = reading || embedded < chunks;
  const share = reading ? reading.done / (reading.total || 1) : embedded / (chunks || 1);
  const percent = Math.floor(100 * share);
  put($("facts"), files ? `${count(files, "file")} in ${count(chunks, "chunk")}, from ${status.root}` : "");
  put($("state"), "");
  if (reading) $("state").append("Reading", reading.total ? ` ${reading.done.toLocaleString("en")} of ${count(reading.total, "file")}` : "");
  else if (busy) $("state").append(`Vectors ${percent} %`, el("span", {}, remaining(embedded, chunks)));
  $("progress").hidden = !busy;
  $("progress").setAttribute("aria-valuenow", percent);
  $("progress").firstElementChild.style.width = `${100 * share}%`;
  if (!busy) began = null;
  if (!busy && answer?.indexed.embedded < chunks && !$("summary").querySelector("button")) {
    $("summary").append(el("p", {}, "The index is whole now: ", el("button", { "data-act": "again" }, "search again")));
  }
}

function remaining(embedded, chunks) {
  const now = performance.now();
  if (!began || embedded <= began.embedded) began = { now, embedded }; // until the first has come
  if (now - began.now < 5000) return "";
  const rate = (embedded - began.embedded) / (now - began.now);
  const seconds = (chunks - embedded) / rate / 1000;
  return seconds > 90 ? `, about ${Math.round(seconds / 60)} min left` : `, about ${Math.ceil(seconds / 5) * 5} s left`;
}

function facets(name, counts) {
  const rest = state[name].filter((value) => !(value in counts));
  const all = [...Object.entries(counts).sort((a, b) => b[1] - a[1]), ...rest.map((value) => [value, 0])];
  const button = document.querySelector(`[popovertarget=${name}]`);
  button.hidden = all.length < 2 && !state[name].length;
  const shown = JSON.stringify(all);
  if ($(name).dataset.shown !== shown) {
    $(name).dataset.shown = shown;
    $(name).replaceChildren(...all.map(([value, files]) => el("label", {},
      el("input", { type: "checkbox", value, checked: state[name].includes(value) }),
      el("bdi", {}, value), el("small", {}, files.toLocaleString("en")))));
  }
  label(button, name);
}

function label(button, name) {
  put(button, state[name].length ? state[name].join(", ") : button.dataset.name);
  button.classList.toggle("set", state[name].length > 0);
  button.setAttribute("aria-label", `${button.dataset.name}: ${state[name].join(", ") || "all"}`);
}

// ---- from state to the screen, and back ----

function controls() {
  const { related, kind } = state;
  $("q").value = state.q;
  $("code").value = state.code;
  $("index").value = state.index;
  for (const name of ["path", "since", "mode", "k"]) {
    $(name).value = state[name];
    $(name).classList.toggle("set", state[name] !== EMPTY[name]);
  }
  for (const radio of document.querySelectorAll("[name=kind]")) radio.checked = radio.value === kind;
  for (const name of MENUS) {
    for (const box of $(name).querySelectorAll("input")) box.checked = state[name].includes(box.value);
    label(document.querySelector(`[popovertarget=${name}]`), name);
  }
  $("likeness").hidden = !related;
  put($("likeness").querySelector("b"), related);
  $("q").hidden = Boolean(related) || kind === "code";
  $("code").hidden = Boolean(related) || kind === "text";
  for (const name of ["since", "mode"]) $(name).disabled = Boolean(related);
  const set = FILTERS.filter((name) => state[name].length).length;
  $("clear").hidden = !set;
  put($("more"), set ? `Filters (${set})` : "Filters");
  grow();
}

function grow() {
  for (const area of [$("q"), $("code")]) {
    area.style.height = "auto";
    area.style.height = `${area.scrollHeight}px`;
  }
}

async function load() {
  typing = false;
  controls();
  if (known && known.index !== state.index) watch();
  if (asked !== key(...request(false))) await search();
  await view(false);
}

function set(changes) {
  take();
  change({ ...changes, file: "" });
  return load();
}

$("form").addEventListener("submit", (event) => event.preventDefault());
$("form").addEventListener("input", ({ target }) => {
  if (target !== $("q") && target !== $("code")) return;
  grow();
  clearTimeout(timer);
  timer = setTimeout(() => {
    take();
    search(true);
  }, TYPING);
});
$("form").addEventListener("change", ({ target }) => {
  if (target.name === "kind") {
    set({ kind: target.value, related: "" });
    (target.value === "text" ? $("q") : $("code")).focus();
  } else if (target.matches("select, input")) set({ [target.id]: target.value.trim() });
});
$("form").addEventListener("keydown", (event) => {
  const { key, target } = event;
  const last = target === $("q") && !target.value.slice(target.selectionStart).includes("\n"); // the last line of the box
  if (key === "Enter" && !event.shiftKey && !event.isComposing && (target === $("q") || event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    take();
    typing = false;
    // To the hits, for the keys to work there; but not away from what is typed on.
    const sent = target.value;
    search().then((shown) => shown && document.activeElement === target && target.value === sent && select(selected, true));
  } else if (key === "ArrowDown" && last && $("hits").firstChild) {
    event.preventDefault();
    select(0, true);
  }
});
for (const name of MENUS) {
  $(name).addEventListener("change", () => set({ [name]: [...$(name).querySelectorAll(":checked")].map((box) => box.value) }));
  $(name).addEventListener("toggle", () => {
    const below = document.querySelector(`[popovertarget=${name}]`).getBoundingClientRect();
    $(name).style.left = `${Math.max(8, Math.min(below.left, innerWidth - $(name).offsetWidth - 8))}px`;
    $(name).style.top = `${below.bottom + 4}px`;
  });
}
$("clear").addEventListener("click", () => set(Object.fromEntries(FILTERS.map((name) => [name, EMPTY[name]]))));
$("more").addEventListener("click", () => {
  $("more").setAttribute("aria-expanded", $("filters").classList.toggle("open"));
});
$("unlike").addEventListener("click", () => KEYS["/"]());

$("list").addEventListener("click", (event) => {
  const node = event.target.closest(".hit");
  if (event.target.dataset.act === "again") return search();
  if (!node) return;
  const one = answer.hits[node.dataset.i];
  select(+node.dataset.i);
  const act = event.target.dataset.act;
  if (act === "more") expand(node);
  else if (act === "copy") copy(`${one.path}:${one.start_line}`);
  else if (act === "related") relate(`${one.path}:${one.start_line}`);
  else if (event.target.dataset.line) open(`${one.path}:${event.target.dataset.line}`);
  else if (event.target.closest("a") && !(event.ctrlKey || event.metaKey || event.shiftKey)) {
    event.preventDefault();
    open(placeOf(one), { focus: event.detail === 0 || matchMedia("(max-width: 1000px)").matches }); // by key, or over all
  }
});
$("list").addEventListener("focusin", (event) => {
  const node = event.target.closest(".hit");
  if (node && +node.dataset.i !== selected) select(+node.dataset.i);
});
$("text").addEventListener("click", (event) => {
  if (event.target.dataset.line) open(`${opened.path}:${event.target.dataset.line}`, { push: false });
});
$("close").addEventListener("click", close);
$("copy").addEventListener("click", () => copy(`${opened.path}:${line}`));
$("related").addEventListener("click", () => relate(`${opened.path}:${line}`));
$("again").addEventListener("click", () => {
  opened = null;
  search().then(() => view(false));
});
$("keys").addEventListener("click", () => $("help").showModal());

for (const [shown, hidden] of [["mouseover", "mouseout"], ["focusin", "focusout"]]) {
  document.addEventListener(shown, ({ target }) => {
    if (!target.dataset?.tip) return;
    put($("tip"), target.dataset.tip);
    target.setAttribute("aria-describedby", "tip");
    $("tip").showPopover();
    const at = target.getBoundingClientRect();
    $("tip").style.left = `${Math.max(8, Math.min(at.left, innerWidth - $("tip").offsetWidth - 8))}px`;
    $("tip").style.top = `${at.bottom + 6}px`;
  });
  document.addEventListener(hidden, ({ target }) => target.dataset?.tip && $("tip").hidePopover());
}

const inFile = () => opened !== null && $("file").contains(document.activeElement);
const here = () => (inFile() ? `${opened.path}:${line}` : placeOf(answer.hits[selected]).replace(/-\d+$/, ""));

const KEYS = {
  "/": () => {
    if (state.related) set({ related: "" });
    $(state.kind === "code" ? "code" : "q").select();
  },
  "?": () => $("help").showModal(),
  j: () => move(1),
  k: () => move(-1),
  ArrowDown: () => move(1),
  ArrowUp: () => move(-1),
  n: () => jump(1),
  p: () => jump(-1),
  Enter: () => inFile() || open(placeOf(answer.hits[selected]), { focus: true }),
  e: () => inFile() || expand($("hits").children[selected]),
  r: () => relate(here()),
  c: () => copy(here()),
  Escape: () => state.file && close(), // one that is still read, too
};

function move(by) {
  if (inFile()) return go(line + by);
  select(selected + by, true);
  if (opened) open(placeOf(answer.hits[selected]), { push: false });
}

function jump(by) {
  const focus = inFile();
  select(selected + (opened ? by : 0));
  open(placeOf(answer.hits[selected]), { push: !opened, focus });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || $("help").open) return;
  if (event.target.matches("textarea, input, select")) {
    if (event.key !== "Escape" || event.target.closest("[popover]")) return;
    return $("hits").firstChild ? select(selected, true) : event.target.blur();
  }
  const act = KEYS[event.key];
  if (!act || (event.key === "Enter" && !event.target.matches(".hit, body"))) return;
  if (!answer?.hits.length && !opened && !["/", "?"].includes(event.key)) return;
  event.preventDefault();
  act();
});

// ---- the start ----

const dark = () => (store.get("theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
$("theme").addEventListener("click", () => {
  store.set("theme", dark() ? "light" : "dark");
  document.documentElement.dataset.theme = store.get("theme");
});
if (store.get("theme")) document.documentElement.dataset.theme = store.get("theme");

function start() {
  const given = new URLSearchParams(location.hash.slice(1));
  if (given.has("token")) {
    store.set("token", given.get("token"));
    given.delete("token");
    history.replaceState(null, "", given.size ? `#${given}` : location.pathname); // a bookmark must not hold it
  }
  state = fromAddress();
  if (!["code", "both"].includes(state.kind)) state.kind = "text";
  if ($("index").options.length) return load();
  controls();
  return choose().then(take).then(load); // what was typed meanwhile counts
}

/** Which repositories there are to choose from. */
async function choose() {
  const { indexes } = await ask("/v1/search/indexes").catch((error) => (fail(error), { indexes: [] }));
  $("index").replaceChildren(...indexes.map((name) => el("option", { value: name }, name)));
  $("index").hidden = indexes.length < 2;
  if (indexes.length > 1 && !indexes.includes(state.index)) change({ index: indexes[0] }, false);
}
addEventListener("popstate", start);
document.addEventListener("visibilitychange", () => document.hidden || watch());
$("q").focus(); // the attribute autofocus acts later, and what is typed until then is lost
await start();
await watch();
