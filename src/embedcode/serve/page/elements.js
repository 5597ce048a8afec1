// Elements of the pages. What a repository or a caller wrote, names included, reaches the document as text, through say().

export const $ = (id) => document.getElementById(id);

// Controls, directions that make code read as what it is not, and halves of surrogate pairs.
const UNSAFE = /[\0-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\p{Cs}]/gu;

function spelled(char) {
  const code = char.charCodeAt(0);
  return code < 256 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
}

/** The same text with what UNSAFE finds spelled out. */
export const spell = (text) => text.replace(UNSAFE, spelled);

export function say(node, text) {
  let from = 0;
  for (const match of text.matchAll(UNSAFE)) {
    const shown = document.createElement("span");
    shown.className = "x";
    shown.textContent = spelled(match[0]);
    node.append(text.slice(from, match.index), shown);
    from = match.index + 1;
  }
  node.append(text.slice(from));
  return node;
}

export function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in node && typeof value !== "string") node[name] = value;
    else node.setAttribute(name, value);
  }
  for (const child of children) typeof child === "string" ? say(node, child) : node.append(child);
  return node;
}

/** A path, which may break behind a slash. */
export function parts(path) {
  return path.split(/(?<=\/)/).flatMap((part, i) => (i ? [el("wbr", {}), part] : [part]));
}

export function put(node, text) {
  node.replaceChildren();
  say(node, text);
}
