// A text with spans of it marked: entities, or the answer to a question.

import { el } from "../dom.js";
import { percent } from "../format.js";

const COLOURS = 6;

/** Mark {start, end, label, score} in a text. The server counts characters, JavaScript counts UTF-16 units. */
export function marked(text, spans) {
  const characters = Array.from(text);
  const parts = [];
  const labels = [];
  let at = 0;
  for (const span of spans.toSorted((a, b) => a.start - b.start)) {
    if (span.start < at) continue;
    if (!labels.includes(span.label)) labels.push(span.label);
    parts.push(characters.slice(at, span.start).join(""));
    parts.push(
      el(
        "mark",
        { class: `mark-${(labels.indexOf(span.label) % COLOURS) + 1}` },
        characters.slice(span.start, span.end).join(""),
        el("span", { class: "tag" }, ` ${span.label} `, el("span", { class: "score" }, percent(span.score))),
      ),
    );
    at = span.end;
  }
  parts.push(characters.slice(at).join(""));
  return el("p", { class: "marked" }, parts);
}

/** Make the highlighted entities of a token classification. */
export function entities(text, found) {
  const spans = found.map((one) => ({ ...one, label: one.entity_group ?? one.entity }));
  return [marked(text, spans), found.length ? null : el("p", { class: "muted" }, "No entity was found.")].filter(Boolean);
}

/** Make the answers to a question, the best one marked in its context. */
export function answers(context, prediction) {
  const found = [prediction].flat();
  if (!found.length || !found[0].answer) return el("p", { class: "muted" }, "The context holds no answer.");
  const rest = found.slice(1).map((one) => el("li", {}, `${one.answer || "no answer"} (${percent(one.score)})`));
  return [
    marked(context, [{ ...found[0], label: "answer" }]),
    rest.length ? el("details", {}, el("summary", {}, "Other answers"), el("ol", {}, rest)) : null,
  ].filter(Boolean);
}
