// The figures that a bundle's manifest states, beside those of its baselines.

import { el, table } from "../dom.js";
import { count, figure } from "../format.js";

// A manifest may state thousands of figures, and a table of that many cells would freeze the tab.
const ROWS = 200;
const BASELINES = 8;

const names = (key) => key.replaceAll("_", " ");
const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

/** Add the numbers of an object to a map, also those of the objects in it, under their path such as `DATE f1`. */
function collect(object, path, found) {
  for (const [key, value] of Object.entries(object)) {
    if (typeof value === "number") found.set(path + key, value);
    else if (isObject(value)) collect(value, `${path}${key} `, found);
  }
}

/** Return the numbers of an object as a column: its own ones are those of the whole, those in objects of the parts. */
function column(title, object) {
  const [whole, parts] = [new Map(), new Map()];
  for (const [key, value] of Object.entries(object ?? {})) {
    if (typeof value === "number") whole.set(key, value);
    else if (isObject(value)) collect(value, `${key} `, parts);
  }
  return { title, whole, parts };
}

/** Return the figures as tables: those of the whole, then those of the parts, folded. */
export function evaluation(object) {
  const baselines = Object.entries(object.baselines ?? {});
  const shown = baselines.slice(0, BASELINES).map(([name, baseline]) => column(names(name), baseline));
  const adapter = column("this adapter", object.adapter ?? object);
  const columns = [adapter, ...shown];
  const { whole, parts } = adapter;
  const split = typeof object.split === "string" ? el("p", { class: "muted small" }, `On the rows of “${object.split}”.`) : null;
  return [
    split,
    whole.size ? figures("Figures", "whole", columns, object.intervals) : null,
    parts.size ? el("details", {}, el("summary", {}, `${count(parts.size)} ${parts.size === 1 ? "figure" : "figures"} of parts`), figures("Figures of parts", "parts", columns)) : null,
    whole.size || parts.size ? null : el("p", { class: "muted" }, "The manifest states no numbers."),
    leftOut(baselines.length - shown.length, "baselines"),
  ].filter(Boolean);
}

function figures(caption, kind, columns, intervals = {}) {
  const heads = [{ title: "Figure", class: "name" }, ...columns.map(({ title }) => ({ title, class: "number" }))];
  const rows = [...columns[0][kind].keys()];
  const shown = rows.slice(0, ROWS);
  const cells = shown.map((row) => [
    names(row),
    ...columns.map((one, i) => {
      const value = one[kind].get(row);
      if (value === undefined) return null;
      const interval = i === 0 ? intervals?.[row] : undefined;
      const range = Array.isArray(interval) && interval.length === 2 ? ` (${interval.map(figure).join("–")})` : "";
      return `${figure(value)}${range}`;
    }),
  ]);
  return [table(caption, heads, cells), leftOut(rows.length - shown.length, "figures")];
}

function leftOut(number, things) {
  return number > 0 ? el("p", { class: "muted small" }, `${count(number)} more ${things} are in the bundle's manifest.`) : null;
}
