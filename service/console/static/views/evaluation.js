// The figures that a bundle's manifest states, beside those of its baselines.

import { el, table } from "../dom.js";
import { figure } from "../format.js";

const names = (key) => key.replaceAll("_", " ");

/** Return the numbers of an object by name; numbers inside objects get the names of both, such as `DATE f1`. */
function numbers(object) {
  const found = {};
  for (const [key, value] of Object.entries(object ?? {})) {
    if (typeof value === "number") found[names(key)] = value;
    else if (value && typeof value === "object" && !Array.isArray(value)) {
      for (const [inner, nested] of Object.entries(numbers(value))) found[`${names(key)} ${inner}`] = nested;
    }
  }
  return found;
}

/** Return the figures as tables: those of the whole, then those of the parts, folded. */
export function evaluation(object) {
  const columns = { "this adapter": numbers(object.adapter ?? object) };
  for (const [name, baseline] of Object.entries(object.baselines ?? {})) columns[names(name)] = numbers(baseline);
  const rows = Object.keys(columns["this adapter"]);
  const whole = rows.filter((row) => !isPart(row, object.adapter));
  const parts = rows.filter((row) => !whole.includes(row));
  const split = typeof object.split === "string" ? el("p", { class: "muted small" }, `On the rows of “${object.split}”.`) : null;
  return [
    split,
    whole.length ? figures("Figures", whole, columns, object.intervals) : el("p", { class: "muted" }, "The manifest states no numbers."),
    parts.length ? el("details", {}, el("summary", {}, `${parts.length} figures of parts`), figures("Figures of parts", parts, columns)) : null,
  ].filter(Boolean);
}

function isPart(row, adapter) {
  return Object.entries(adapter ?? {}).some(([key, value]) => value && typeof value === "object" && row.startsWith(`${names(key)} `));
}

function figures(caption, rows, columns, intervals = {}) {
  const heads = [{ title: "Figure", class: "name" }, ...Object.keys(columns).map((title) => ({ title, class: "number" }))];
  const cells = rows.map((row) => [
    names(row),
    ...Object.values(columns).map((of, i) => {
      if (of[row] === undefined) return null;
      const interval = i === 0 ? intervals?.[row.replaceAll(" ", "_")] : undefined;
      const range = Array.isArray(interval) ? ` (${interval.map(figure).join("–")})` : "";
      return `${figure(of[row])}${range}`;
    }),
  ]);
  return table(caption, heads, cells);
}
