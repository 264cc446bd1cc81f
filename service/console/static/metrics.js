// Reads the server's metrics in Prometheus's text format, and compares two readings of them.

import { call } from "./api.js";

const SAMPLE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;
const ESCAPES = { "\\n": "\n", '\\"': '"', "\\\\": "\\" };

/** Return the samples of a page by metric name: a list of {labels, value} each. */
export function parse(text) {
  const samples = new Map();
  for (const line of text.split("\n")) {
    const parts = line.startsWith("#") ? null : SAMPLE.exec(line);
    if (!parts) continue;
    const labels = {};
    for (const [, name, value] of (parts[2] ?? "").matchAll(LABEL)) {
      labels[name] = value.replace(/\\[n"\\]/g, (escape) => ESCAPES[escape]);
    }
    if (!samples.has(parts[1])) samples.set(parts[1], []);
    samples.get(parts[1]).push({ labels, value: number(parts[3]) });
  }
  return samples;
}

function number(text) {
  return { "+Inf": Infinity, "-Inf": -Infinity }[text] ?? Number(text);
}

/** The metrics at one moment, in seconds. Names are those on the page without `rootstock_`. */
export class Snapshot {
  constructor(samples, at) {
    this.samples = samples;
    this.at = at;
  }

  of(name) {
    return this.samples.get(`rootstock_${name}`) ?? [];
  }

  /** Return the sum of the samples that have these labels. */
  sum(name, labels = {}) {
    const wanted = Object.entries(labels);
    let total = 0;
    for (const sample of this.of(name)) {
      if (wanted.every(([label, value]) => sample.labels[label] === value)) total += sample.value;
    }
    return total;
  }

  /** Return the values of a label, each once. */
  values(name, label) {
    return [...new Set(this.of(name).map((sample) => sample.labels[label]))];
  }
}

/** The growth of the metrics between two snapshots; since the server's start if `before` is null. */
export class Growth {
  constructor(before, after) {
    this.seconds = before === null ? Infinity : Math.max(after.at - before.at, 1e-3);
    this.after = after;
    const start = "process_start_time_seconds";
    // The counters of a process that started in between begin at zero. Its labels tell its series from others.
    const starts = (one) => (one.of(start).length ? one.of(start) : [{ labels: {}, value: 0 }]);
    const begun = before === null ? [] : starts(before);
    const same = (one, other) => one.value === other.value && JSON.stringify(one.labels) === JSON.stringify(other.labels);
    this.before = before;
    this.stayed = starts(after).filter((one) => begun.some((other) => same(one, other))).map(({ labels }) => labels);
  }

  count(name, labels) {
    const before = this.stayed.map((one) => this.before.sum(name, { ...labels, ...one }));
    return Math.max(0, before.reduce((left, value) => left - value, this.after.sum(name, labels)));
  }

  rate(name, labels) {
    return this.count(name, labels) / this.seconds;
  }

  /** Return the mean of a histogram's observations, NaN without one. */
  mean(name, labels) {
    return this.count(`${name}_sum`, labels) / this.count(`${name}_count`, labels);
  }

  /** Return a quantile as Prometheus's histogram_quantile does, linear within a bucket; NaN without observations. */
  quantile(share, name, labels = {}) {
    const bounds = this.after.values(`${name}_bucket`, "le").sort((a, b) => number(a) - number(b));
    const counts = bounds.map((le) => [number(le), this.count(`${name}_bucket`, { ...labels, le })]);
    const rank = share * (counts.at(-1)?.[1] ?? 0);
    if (!rank) return NaN;
    let [low, under] = [0, 0];
    for (const [bound, count] of counts) {
      if (count >= rank) return bound === Infinity ? low : low + ((bound - low) * (rank - under)) / (count - under || Infinity);
      [low, under] = [bound, count];
    }
    return low;
  }
}

/** Read the metrics now. */
export async function snapshot(signal) {
  const text = await (await call("metrics", { signal })).text();
  return new Snapshot(parse(text), performance.now() / 1000);
}
