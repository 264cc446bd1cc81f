// The server's work now: charts from two readings of its metrics, and the busiest adapters.

import { Chart } from "../chart.js";
import { el, heading, panel, table } from "../dom.js";
import { bytes, count, figure, milliseconds, percent } from "../format.js";
import { Growth, snapshot } from "../metrics.js";
import { problem } from "../problem.js";

const EVERY_MS = 2000;
const SECONDS = 300;
const MOST_ADAPTERS = 10;
const STAGES = ["load", "tokenize", "queue", "inference"];

/** The charts: what each shows of the growth between two readings. */
const CHARTS = [
  {
    title: "Answers per second", series: ["answered", "failed", "refused"], write: figure,
    values: (g) => [g.rate("latency_seconds_count", { stage: "total" }) + g.rate("first_token_seconds_count"), g.rate("failures_total"), g.rate("refused_total")],
  },
  {
    title: "Latency by stage", series: STAGES, write: (ms) => milliseconds(ms), stacked: true, note: "Mean of each stage, one on the other.",
    values: (g) => STAGES.map((stage) => 1000 * g.mean("latency_seconds", { stage })),
  },
  {
    title: "Latency of answers", series: ["median", "99th percentile"], write: (ms) => milliseconds(ms), note: "Interpolated within the metrics' buckets.",
    values: (g) => [0.5, 0.99].map((share) => 1000 * g.quantile(share, "latency_seconds", { stage: "total" })),
  },
  {
    title: "Batch mix", series: ["inputs", "distinct adapters"], write: figure, note: "Mean of a batch.",
    values: (g) => [g.mean("batch_rows"), g.mean("batch_adapters")],
  },
  {
    title: "Queue", series: ["inputs", "tokens"], write: figure,
    values: (g) => [g.after.sum("queue_items"), g.after.sum("queue_tokens")],
  },
  {
    title: "Slots", series: ["adapters in slots", "adapters in memory"], write: figure,
    values: (g) => [g.after.sum("slots_used"), g.after.sum("cache_adapters")],
  },
];
const GENERATION = [
  {
    title: "Generated tokens per second", series: ["answers", "prompts"], write: figure,
    values: (g) => [g.rate("generated_tokens_total"), g.rate("prompt_tokens_total")],
  },
  {
    title: "Sequences", series: ["running", "waiting"], write: figure,
    values: (g) => [g.after.sum("sequences_running"), g.after.sum("sequences") - g.after.sum("sequences_running")],
  },
  {
    title: "First token", series: ["median", "99th percentile"], write: (ms) => milliseconds(ms),
    values: (g) => [0.5, 0.99].map((share) => 1000 * g.quantile(share, "first_token_seconds")),
  },
];

export async function show(place, { signal }) {
  const fault = el("div");
  const charts = el("div", { class: "charts" });
  const facts = el("div", { class: "badges" });
  const busiest = panel("Busiest adapters", null, el("p", { class: "muted" }, "No request since the last reading."));
  place.append(heading("Live", `From the server's metrics, every ${EVERY_MS / 1000} seconds.`), fault, facts, charts, busiest);
  let before = await snapshot(signal);
  const generates = before.of("sequences").length > 0;
  const shown = [...CHARTS, ...(generates ? GENERATION : [])].map((chart) => ({ ...chart, drawn: new Chart({ ...chart, seconds: SECONDS }) }));
  charts.replaceChildren(...shown.map((chart) => chart.drawn.element));
  facts.replaceChildren(...foundations(before));

  async function step() {
    const after = await snapshot(signal);
    const growth = new Growth(before, after);
    for (const chart of shown) chart.drawn.add(after.at, chart.values(growth));
    busiest.replaceChildren(busiest.firstChild, ranking(growth));
    before = after;
  }

  for (;;) {
    await pause(EVERY_MS, signal);
    if (document.hidden) continue;
    try {
      await step();
      fault.replaceChildren();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      fault.replaceChildren(problem(error));
    }
  }
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("left", "AbortError"));
    });
  });
}

function foundations(metrics) {
  // On a page of several processes or replicas, each foundation has the figures of all together.
  const named = new Map(metrics.of("server_info").map(({ labels }) => [labels.name, labels]));
  return [...named.values()].map((labels) => {
    const of = { foundation: labels.name };
    const memory = `${bytes(metrics.sum("cache_bytes", of))} of ${bytes(metrics.sum("cache_bytes_limit", of))} for adapters`;
    const slots = `${count(metrics.sum("slots_limit", of))} slots`;
    return el("span", { class: "badge" }, `${labels.name}: ${labels.runner}, ${labels.precision}, ${slots}, ${memory}`);
  });
}

/** Make the table of the adapters that used the runner most since the last reading. */
function ranking(growth) {
  const compute = growth.count("adapter_compute_seconds_total");
  const rows = growth.after.values("latency_seconds_count", "adapter")
    .map((adapter) => ({ adapter, answers: growth.rate("latency_seconds_count", { adapter, stage: "total" }) }))
    .filter(({ answers }) => answers > 0)
    .sort((a, b) => b.answers - a.answers)
    .slice(0, MOST_ADAPTERS)
    .map(({ adapter, answers }) => [
      adapter === "other" ? "all others" : el("a", { href: `#/adapters/${encodeURIComponent(adapter)}` }, adapter),
      figure(answers),
      milliseconds(1000 * growth.quantile(0.99, "latency_seconds", { adapter, stage: "total" })),
      compute ? percent(growth.count("adapter_compute_seconds_total", { adapter }) / compute) : "–",
      count(growth.after.sum("latency_seconds_count", { adapter, stage: "total" })),
    ]);
  if (!rows.length) return el("p", { class: "muted" }, "No request since the last reading.");
  return table("Busiest adapters", [{ title: "Adapter", class: "name", bare: true }, { title: "Answers/s", class: "number" }, { title: "p99", class: "number" }, { title: "Share of the runner", class: "number" }, { title: "Answers in all", class: "number" }], rows, true);
}
