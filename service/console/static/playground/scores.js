// Labels with scores, as bars.

import { el } from "../dom.js";
import { percent } from "../format.js";

const FIRST = 12;

/** Make bars for [label, score] pairs, best first. `ofScore` writes a score. */
export function bars(pairs, ofScore = percent) {
  const sorted = pairs.toSorted((a, b) => b[1] - a[1]);
  const few = list(sorted.slice(0, FIRST), ofScore, true);
  if (sorted.length <= FIRST) return few;
  return [few, el("details", {}, el("summary", {}, `${sorted.length - FIRST} more labels`), list(sorted.slice(FIRST), ofScore, false))];
}

function list(pairs, ofScore, withBest) {
  return el(
    "ol",
    { class: "bars" },
    pairs.map(([label, score], i) => {
      const fill = el("span", { class: "fill" });
      fill.style.width = `${100 * Math.min(1, Math.max(0, score))}%`;
      return el(
        "li",
        { class: withBest && i === 0 ? "best" : null },
        el("span", { class: "label" }, label),
        el("span", { class: "track", "aria-hidden": "true" }, fill),
        el("span", { class: "value" }, ofScore(score)),
      );
    }),
  );
}
