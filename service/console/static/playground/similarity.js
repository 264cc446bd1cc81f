// How similar texts are: the cosine of the angle between their embeddings.

import { el } from "../dom.js";

const STRONGEST = 45;

function cosine(a, b) {
  let [dot, ofA, ofB] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    dot += a[i] * b[i];
    ofA += a[i] * a[i];
    ofB += b[i] * b[i];
  }
  return dot / (Math.sqrt(ofA * ofB) || 1);
}

/** Make the table of the similarities of each pair of texts. */
export function similarity(texts, vectors) {
  const rows = vectors.map((vector, i) => {
    const cells = vectors.map((other) => {
      const value = cosine(vector, other);
      const cell = el("td", { class: "number heat" }, value.toFixed(2));
      cell.style.setProperty("--heat", `${Math.round(STRONGEST * Math.max(0, value))}%`);
      return cell;
    });
    return el("tr", {}, el("th", { scope: "row", class: "text" }, `${i + 1}. ${texts[i]}`), cells);
  });
  const head = el("tr", {}, el("th", { scope: "col" }, `${vectors[0].length} dimensions`), texts.map((_, i) => el("th", { scope: "col", class: "number" }, `${i + 1}`)));
  return el(
    "div",
    { class: "scroll", tabindex: "0", role: "group", "aria-label": "Table: similarity" },
    el("table", { class: "similarity" }, el("thead", {}, head), el("tbody", {}, rows)),
  );
}
