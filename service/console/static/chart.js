// A line chart of the last minutes, drawn as SVG, with a legend that states the newest values as text.

import { el, svg } from "./dom.js";

const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP] = [460, 150, 54, 18, 8];

/** Return a round number at or above the largest value. */
function roundUp(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}

const SHORTEST = 30;

/** A chart of several series over at most `seconds`. `stacked` adds them up. `write` writes a value, `note` explains. */
export class Chart {
  constructor({ title, series, seconds, write, stacked = false, note = null }) {
    this.names = series;
    this.seconds = seconds;
    this.write = write;
    this.stacked = stacked;
    this.points = [];
    this.values = series.map(() => el("span", { class: "now" }, "–"));
    this.plot = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "plot", role: "img", "aria-label": `${title}, last minutes` });
    const legend = series.map((name, i) => el("li", { class: `series-${i + 1}` }, el("span", { class: "key", "aria-hidden": "true" }), name, this.values[i]));
    this.element = el("section", { class: "panel chart", "aria-label": title }, el("header", {}, el("h2", {}, title)), this.plot, el("ul", { class: "legend" }, legend), note ? el("p", { class: "muted small" }, note) : null);
    this.draw(0);
  }

  /** Add the values at a time in seconds; NaN is a gap. */
  add(at, values) {
    this.points.push({ at, values });
    while (this.points[0].at < at - this.seconds) this.points.shift();
    values.forEach((value, i) => (this.values[i].textContent = Number.isFinite(value) ? this.write(value) : "–"));
    this.draw(at);
  }

  draw(now) {
    const lines = this.lines();
    const most = roundUp(Math.max(0, ...lines.flat().map(([, value]) => value)));
    const span = Math.min(this.seconds, Math.max(SHORTEST, now - (this.points[0]?.at ?? now)));
    const x = (at) => LEFT + (WIDTH - LEFT) * (1 - (now - at) / span);
    const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / most);
    const grid = [0, 0.5, 1].map((share) => [
      svg("line", { class: "grid", x1: LEFT, x2: WIDTH, y1: y(share * most), y2: y(share * most) }),
      svg("text", { class: "axis", x: LEFT - 6, y: y(share * most) + 4, "text-anchor": "end" }, this.write(share * most)),
    ]);
    const times = [
      svg("text", { class: "axis", x: LEFT, y: HEIGHT - 3 }, `${Math.round(span)} s ago`),
      svg("text", { class: "axis", x: WIDTH, y: HEIGHT - 3, "text-anchor": "end" }, "now"),
    ];
    const shapes = lines.map((line, i) => this.shape(line, i, x, y)).reverse();
    this.plot.replaceChildren(...grid.flat(), ...times, ...shapes.flat());
  }

  /** Return the [time, value] pairs of each series, added up if the chart is stacked. */
  lines() {
    return this.names.map((_, i) =>
      this.points
        .map(({ at, values }) => [at, this.stacked ? values.slice(0, i + 1).reduce((sum, value) => sum + (value || 0), 0) : values[i]])
        .filter(([, value]) => Number.isFinite(value)),
    );
  }

  shape(line, i, x, y) {
    if (!line.length) return [];
    const path = line.map(([at, value], j) => `${j ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    const drawn = svg("path", { class: `line series-${i + 1}`, d: path });
    if (!this.stacked) return [drawn];
    const area = `${path}L${x(line.at(-1)[0]).toFixed(1)} ${y(0)}L${x(line[0][0]).toFixed(1)} ${y(0)}Z`;
    return [svg("path", { class: `area series-${i + 1}`, d: area }), drawn];
  }
}
