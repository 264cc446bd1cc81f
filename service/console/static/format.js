// Writes numbers, sizes, times and references for people.

const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const moment = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });

export const count = (n) => whole.format(n);

/** Write a number with three significant digits, a very small one with an exponent. */
export function figure(n) {
  if (!Number.isFinite(n)) return "–";
  return n !== 0 && Math.abs(n) < 1e-3 ? n.toExponential(1) : short.format(n);
}

/** Write a share as a percentage with one decimal. */
export const percent = (share) => `${(100 * share).toFixed(1)} %`;

export function milliseconds(ms) {
  if (!Number.isFinite(ms)) return "–";
  return ms >= 1000 ? `${figure(ms / 1000)} s` : `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

export function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  for (; n >= 1024 && i < units.length - 1; i++) n /= 1024;
  return `${i ? figure(n) : n} ${units[i]}`;
}

export function time(iso) {
  return moment.format(new Date(iso));
}

/** Shorten a digest to the form that a reference accepts. */
export const digest = (text) => text.slice(0, "sha256:".length + 12);
