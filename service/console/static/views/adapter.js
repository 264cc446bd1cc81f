// One adapter: versions, aliases, what it is, labels, figures, card, traffic and events.

import { adapterPath, call, read } from "../api.js";
import { announce, el, heading, panel, table } from "../dom.js";
import { bytes, count, digest, figure, time } from "../format.js";
import { TASKS } from "../playground/tasks.js";
import { filling, problem } from "../problem.js";
import { residency } from "./adapters.js";
import { previousLive, promote, rollBackButton } from "./aliases.js";
import { card } from "./card.js";
import { eventList } from "./events.js";
import { evaluation } from "./evaluation.js";
import { state } from "./sentences.js";
import { traffic } from "./traffic.js";

const VERSIONS = [
  { title: "Version", class: "name", bare: true },
  { title: "Published" },
  { title: "Size", class: "number" },
  { title: "Residency" },
  { title: "Verified" },
  { title: "Digest" },
  { title: "Actions", class: "wide", bare: true },
];

/** Show an adapter. `version` of the query chooses the version that is described: else the live one, else the newest. */
export async function show(place, { name, query, signal }) {
  const actions = el("div", { class: "actions" });
  const body = el("div", { class: "view" }, el("p", { class: "waiting" }, "Loading…"));
  place.append(heading(name, null, actions), body);
  await draw();

  async function draw() {
    let adapter;
    try {
      adapter = await read(adapterPath(name), { signal });
    } catch (error) {
      body.replaceChildren();
      throw error;
    }
    const [previous, { version: shown, about, fault }] = await Promise.all([previousLive(adapter, signal), chosen(adapter, query.get("version"), signal)]);
    actions.replaceChildren(...buttons(adapter, previous, redraw));
    const [cardText, events, answers] = [el("div"), el("div"), el("div")];
    body.replaceChildren(
      summary(adapter),
      panel("Versions", null, versions(adapter, shown, redraw)),
      ...(fault ? [fault] : []),
      el(
        "div",
        { class: "detail" },
        el("div", { class: "view" }, about ? description(about, shown) : null, panel("Traffic", null, answers)),
        el(
          "div",
          { class: "view" },
          about?.evaluation ? panel(`Evaluation of version ${shown}`, null, ...evaluation(about.evaluation)) : null,
          shown === null ? null : panel(`Card of version ${shown}`, null, cardText),
          panel("Events", null, events),
        ),
      ),
    );
    await Promise.all([
      shown === null ? null : filling(cardText, () => card(adapter.name, shown, signal)),
      filling(answers, () => traffic(adapter.name, signal)),
      filling(events, () => eventList(adapter.name, signal)),
    ]);
  }

  /** Draw again after a change. Whoever has left the view meanwhile needs no drawing. */
  async function redraw() {
    try {
      await draw();
    } catch (error) {
      if (!signal.aborted) body.replaceChildren(problem(error));
    }
  }
}

/** Return the version to show with its description, or the error of a version that the address names wrongly. */
async function chosen(adapter, asked, signal) {
  const usual = adapter.live ?? adapter.versions.at(-1)?.version ?? null;
  if (asked === null || asked === String(usual)) return { version: usual, about: adapter.description };
  try {
    const { version, description: about } = await read(adapterPath(adapter.name, "versions", asked), { signal });
    return { version, about };
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return { version: null, about: null, fault: problem(error) };
  }
}

function summary(adapter) {
  const aliases = Object.entries(adapter.aliases).map(([alias, version]) =>
    el("span", { class: alias === "live" ? "badge live" : "badge" }, `${alias} → v${version}`),
  );
  const splits = Object.entries(adapter.splits ?? {}).flatMap(([alias, shares]) =>
    Object.entries(shares).map(([version, percent]) => el("span", { class: "badge" }, `${alias}: ${percent} % → v${version}`)),
  );
  const trials = Object.entries({ shadow: adapter.shadow, rule: adapter.rule })
    .filter(([, value]) => value)
    .map(([name, value]) => el("span", { class: "badge" }, `${name}: ${state(value)}`));
  return el("p", { class: "badges" }, el("span", { class: "badge" }, adapter.task ?? "no task"), aliases, splits, trials);
}

function buttons(adapter, previous, redraw) {
  const to = encodeURIComponent(adapter.name);
  return [
    adapter.live === null ? null : el("a", { class: "button main", href: `#/playground?model=${to}` }, "Try it"),
    el("a", { class: "button", href: `#/upload?name=${to}` }, "Upload a version"),
    adapter.versions.length ? rollBackButton(adapter, previous, redraw) : null,
  ].filter(Boolean);
}

function versions(adapter, shown, redraw) {
  const to = encodeURIComponent(adapter.name);
  const rows = adapter.versions.toReversed().map((version) => {
    const aliases = Object.entries(adapter.aliases).filter(([, number]) => number === version.version);
    return [
      el("span", { class: "badges" }, el("a", { href: `#/adapters/${to}?version=${version.version}`, title: `Show version ${version.version}`, "aria-current": version.version === shown ? "true" : null }, `v${version.version}`), aliases.map(([alias]) => el("span", { class: alias === "live" ? "badge live" : "badge" }, alias))),
      el("time", { datetime: version.created_at }, time(version.created_at)),
      bytes(version.size),
      residency(version.residency),
      verified(version.verification),
      el("code", { title: version.digest }, digest(version.digest)),
      el(
        "div",
        { class: "actions" },
        el("button", { type: "button", class: "small", click: () => promote(adapter, version.version, redraw), "aria-label": `Promote version ${version.version}` }, "Promote"),
        el("button", { type: "button", class: "small", click: () => download(adapter.name, version.version), "aria-label": `Download version ${version.version}` }, "Download"),
        comparable(adapter, version) ? el("a", { class: "button small", href: `#/playground?${new URLSearchParams([["model", adapter.name], ["model", `${adapter.name}@${version.version}`]])}`, "aria-label": `Compare version ${version.version} with live` }, "Compare with live") : null,
      ),
    ];
  });
  return table("Versions", VERSIONS, rows, true);
}

/** Return whether the playground can show a version beside the live one: it compares no generated texts. */
function comparable(adapter, { version, task }) {
  return adapter.live !== null && adapter.live !== version && adapter.task === task && task in TASKS;
}

/** Return a sentence about the checks that a version passed. */
function verified(verification) {
  const { golden, inputs, max_difference: difference } = verification;
  if (golden === "not replayed") return el("span", { class: "badge warn", title: "an import does not run the model, so no outputs were compared; upload the bundle to replay its golden set" }, "golden set not replayed");
  if (golden !== "passed") return el("span", { class: "badge warn", title: "the bundle has no golden set, so no outputs were compared" }, "no golden set");
  const signer = verification.signature?.signer;
  return `${count(inputs)} golden inputs, differ by at most ${figure(difference)}${signer ? `; signed by ${signer}` : ""}`;
}

function description(about, version) {
  const facts = [
    ["Kind", about.kind],
    ["Head", about.head],
    ["Problem type", about.problem_type?.replaceAll("_", " ")],
    ["Rank", about.ranks?.join(", ")],
    ["Targets", about.targets?.length ? targets(about.targets) : null],
    ["Parameters", about.parameters === undefined ? null : count(about.parameters)],
    ["Longest input", about.max_length === null || about.max_length === undefined ? null : `${count(about.max_length)} tokens`],
    ["Foundation", about.base ? el("span", { title: about.base.fingerprint }, about.base.id && about.base.id !== about.base.name ? `${about.base.id} (${about.base.name})` : about.base.name) : null],
    ["Golden set", about.golden === undefined ? null : about.golden ? "yes" : "no"],
    ["Licence", about.licence],
  ].filter(([, value]) => value !== null && value !== undefined && value !== "");
  const panels = [panel(`Version ${version}`, null, el("dl", { class: "facts" }, facts.map(([term, value]) => [el("dt", {}, term), el("dd", {}, value)])))];
  if (about.labels?.length) panels.push(panel(`Labels of version ${version}`, null, labels(about.labels)));
  if (about.provenance) panels.push(panel("Provenance", null, el("details", {}, el("summary", {}, "Show where it comes from"), el("pre", { class: "json", tabindex: "0" }, JSON.stringify(about.provenance, null, 2)))));
  return panels;
}

function targets(modules) {
  if (modules.length <= 4) return el("code", {}, modules.join(", "));
  return el("details", {}, el("summary", {}, `${modules.length} modules`), el("code", { class: "lines" }, modules.join("\n")));
}

function labels(names) {
  const FIRST = 40;
  const badges = names.map((label) => el("span", { class: "badge" }, label));
  const few = el("div", { class: "badges" }, badges.slice(0, FIRST));
  if (names.length <= FIRST) return few;
  return [few, el("details", {}, el("summary", {}, `${names.length - FIRST} more`), el("div", { class: "badges" }, badges.slice(FIRST)))];
}

async function download(name, version) {
  try {
    // A link would send no key.
    const response = await call(adapterPath(name, "versions", version, "bundle"));
    const url = URL.createObjectURL(await response.blob());
    el("a", { href: url, download: `${name}-${version}.zip` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  } catch (error) {
    announce(error.message);
  }
}
