// An adapter's requests since the server's start.

import { el } from "../dom.js";
import { count, milliseconds } from "../format.js";
import { Growth, snapshot } from "../metrics.js";

const STAGES = { load: "Mean load", tokenize: "Mean tokenising", queue: "Mean queue", inference: "Mean inference" };

export async function traffic(name, signal) {
  const since = new Growth(null, await snapshot(signal));
  const of = { adapter: name, stage: "total" };
  const answers = since.count("latency_seconds_count", of);
  const generated = since.count("generated_tokens_total", { adapter: name });
  const prompts = since.count("prompt_tokens_total", { adapter: name });
  if (!answers && !generated) {
    return el("p", { class: "muted" }, "No request since the server started, or too few for a series: only the busiest adapters have one.");
  }
  const facts = [];
  if (answers) {
    facts.push(["Answers", count(answers)], ["Tokens", count(since.count("adapter_tokens_total", { adapter: name }))]);
    for (const [title, share] of [["Median", 0.5], ["99th percentile", 0.99]]) {
      facts.push([title, milliseconds(1000 * since.quantile(share, "latency_seconds", of))]);
    }
    for (const [stage, title] of Object.entries(STAGES)) facts.push([title, milliseconds(1000 * since.mean("latency_seconds", { adapter: name, stage }))]);
  }
  if (generated) facts.push(["Tokens of prompts", count(prompts)], ["Tokens generated", count(generated)]);
  return [
    el("dl", { class: "facts" }, facts.map(([term, value]) => [el("dt", {}, term), el("dd", {}, value)])),
    el("p", { class: "muted small" }, "Since the server started."),
  ];
}
