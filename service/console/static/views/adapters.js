// The list of adapters: a page at a time, with search, residency and traffic.

import { read } from "../api.js";
import { el, heading, table } from "../dom.js";
import { count } from "../format.js";
import { snapshot } from "../metrics.js";
import { problem } from "../problem.js";

const PAGE = 50;
const PAUSE_MS = 150;
const RESIDENCY = { slot: "ready in a slot of the runner", memory: "in host memory", store: "in the store; the first request loads it" };
const COLUMNS = [
  { title: "Name", class: "name", bare: true },
  { title: "Task" },
  { title: "Live", class: "number" },
  { title: "Versions", class: "number" },
  { title: "Aliases" },
  { title: "Residency" },
  { title: "Answers", class: "number" },
];

/** Make the mark of where a version is. */
export function residency(where) {
  return where === null ? null : el("span", { class: `residency ${where}`, title: RESIDENCY[where] }, where);
}

/** Return the answers of each adapter since the server's start; only the busiest have a series. */
function traffic(metrics) {
  const answers = new Map();
  for (const { labels, value } of metrics.of("latency_seconds_count")) {
    if (labels.stage === "total") answers.set(labels.adapter, (answers.get(labels.adapter) ?? 0) + value);
  }
  return answers;
}

function row(adapter, answers) {
  const others = Object.entries(adapter.aliases).filter(([alias]) => alias !== "live");
  const served = answers.get(adapter.name);
  return [
    el("a", { href: `#/adapters/${encodeURIComponent(adapter.name)}` }, adapter.name),
    adapter.task,
    adapter.live === null ? "none" : `v${adapter.live}`,
    count(adapter.versions.length),
    others.length ? el("span", { class: "badges" }, others.map(([alias, version]) => el("span", { class: "badge" }, `${alias} → v${version}`))) : null,
    residency(adapter.residency),
    served ? count(served) : null,
  ];
}

export async function show(place, { query, signal }) {
  const search = el("input", {
    type: "search", placeholder: "Search by name", "aria-label": "Search adapters by name", value: query.get("search") ?? "",
    input: () => {
      clearTimeout(pause);
      pause = setTimeout(begin, PAUSE_MS);
    },
  });
  const summary = el("p", { class: "muted small", "aria-live": "polite" }, "Loading…");
  const list = el("div");
  const more = el("button", { type: "button", hidden: true, click: () => extend() }, `Show ${PAGE} more`);
  place.append(
    heading("Adapters", null, el("a", { class: "button main", href: "#/upload" }, "Upload an adapter")),
    el("section", { class: "panel", "aria-label": "Adapters" }, el("div", { class: "search" }, search, summary), list, el("div", { class: "actions" }, more)),
  );
  let shown = [];
  let next = null;
  let turn = 0;
  let pause;
  let answers = new Map();

  async function page(after) {
    const params = new URLSearchParams({ limit: PAGE });
    if (after !== null) params.set("after", after);
    if (search.value) params.set("search", search.value);
    return read(`v1/adapters?${params}`, { signal });
  }

  /** Show the first page of what the user searches. A slower answer to an earlier text is dropped. */
  async function begin() {
    const mine = ++turn;
    const first = await attempt(() => page(null));
    if (first === null || mine !== turn) return;
    shown = first.adapters;
    next = first.next;
    draw();
  }

  async function extend() {
    const mine = turn;
    const further = await attempt(() => page(next));
    if (further === null || mine !== turn) return;
    shown = [...shown, ...further.adapters];
    next = further.next;
    draw();
  }

  async function attempt(work) {
    try {
      return await work();
    } catch (error) {
      if (error.name !== "AbortError") list.replaceChildren(problem(error));
      if (error.name !== "AbortError") summary.textContent = "";
      return null;
    }
  }

  function draw() {
    more.hidden = next === null;
    summary.textContent = `${count(shown.length)} shown${next === null ? "" : ", more follow"}`;
    list.replaceChildren(shown.length ? table("Adapters", COLUMNS, shown.map((one) => row(one, answers)), true) : empty(search.value));
  }

  /** Add the traffic once it is there. The list does not wait for it, and does without it. */
  async function addTraffic() {
    const metrics = await snapshot(signal).catch(() => null);
    if (metrics === null) return;
    answers = traffic(metrics);
    if (shown.length) draw();
  }

  await Promise.all([begin(), addTraffic()]);
}

function empty(searched) {
  if (searched) return el("p", { class: "empty" }, `No adapter has “${searched}” in its name.`);
  return el(
    "div",
    { class: "empty" },
    el("p", {}, "No adapter is published yet."),
    el("p", {}, el("a", { href: "#/upload" }, "Upload one"), " or run ", el("code", {}, "rootstock adapters push FOLDER --name NAME"), "."),
    el("p", {}, "The ", el("a", { href: "#/playground" }, "playground"), " works with the foundation alone."),
  );
}
