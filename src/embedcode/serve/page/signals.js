// What the page shows of a hit, from that hit alone: its lines, and why it stands where it stands.

import { el, say } from "/elements.js";

const SIGNALS = {
  definition: ["↑", "Its symbol has words of the query."],
  stem: ["↑", "Its file is called by words of the query."],
  named: ["↑", "A name that the query writes as a name is defined here."],
  frames: ["↑", "A frame of the traceback in the query lies here."],
  paths: ["↑", "The query names this file or its folder."],
  neighbours: ["↑", "The chunk before or behind it is a good candidate too."],
  file: ["↑", "The best chunk of a file with many candidates."],
  tests: ["↓", "A test, and the query does not speak of tests."],
  docs: ["↓", "Prose, and the query does not ask for prose."],
  shims: ["↓", "It only passes names on, or is an example."],
  verbatim: ["↑", "The name that was asked stands here, or is defined here."],
  spread: ["↓", "A later hit of a file, or of a definition, that stands above."],
};
const MEASURES = [
  [/^words #(\d+) \(([\d.]+)\)$/, (rank, score) => [`words #${rank}`, `Number ${rank} by words, with a BM25 score of ${score}.`]],
  [/^vector \((-?[\d.]+)\)$/, (cosine) => [`vector ${(+cosine).toFixed(2)}`, `Cosine of ${cosine} between the vectors of query and chunk: the nearer to 1, the closer in meaning.`]],
];

export function why(signal) {
  for (const [pattern, told] of MEASURES) {
    const found = signal.match(pattern);
    if (found) return badge(...told(...found.slice(1)));
  }
  const [sign, meaning] = SIGNALS[signal] ?? ["", "It moved the hit."];
  return badge(`${sign} ${signal}`, meaning + { "↑": " It is ranked higher.", "↓": " It is ranked lower.", "": "" }[sign]);
}

const badge = (label, tip) => el("span", { "data-tip": tip }, label);

export const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

export function rows(lines, first) {
  return lines.map((runs, i) => {
    const code = el("code", {});
    for (const [text, kind] of runs) kind ? code.append(el("span", { class: kind }, text)) : say(code, text);
    if (!runs.length) code.append("\n"); // so that a copied selection keeps the line
    return el("div", { class: "row" }, el("span", { class: "no", "data-line": `${first + i}` }), code);
  });
}
