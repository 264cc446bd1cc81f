// Moves aliases: the dialogs that promote a version and that roll back, and the history of `live`.

import { adapterPath, call, read } from "../api.js";
import { confirmation } from "../dialog.js";
import { announce, el, field } from "../dom.js";

// The largest page of events. An adapter with more of them shows the newest part of its history.
const EVENTS = 1000;
// The rule of adapters/reference.py.
const RULE = { pattern: "(?=.*[A-Za-z])[A-Za-z0-9._\\-]{1,64}", title: "1 to 64 characters of A-Z a-z 0-9 . _ - with at least one letter" };

/** Return the version that a roll back would make live: null if there is none, undefined if the events do not show it. */
export async function previousLive(adapter, signal) {
  try {
    const page = await read(`${adapterPath(adapter.name, "events")}?limit=${EVENTS}`, { signal });
    const history = liveHistory(page.events);
    // After a deletion, the history can hold the same version twice in a row.
    while (history.length && history.at(-1) === adapter.live) history.pop();
    return history.at(-1) ?? (page.next === null ? null : undefined);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return undefined;
  }
}

/** Return the versions that were live, oldest first, as the registry keeps them. `events` are newest first. */
function liveHistory(events) {
  let history = [];
  for (const event of events.toReversed()) {
    if (event.what === "alias_set" && event.alias === "live") history.push(event.version);
    if (event.what === "rolled_back") history = [...history.slice(0, Math.max(0, history.lastIndexOf(event.version))), event.version];
    if (event.what === "version_deleted") history = history.filter((version) => version !== event.version);
    if (event.what === "adapter_deleted") history = [];
  }
  return history;
}

const named = (version) => (version === null || version === undefined ? "no version" : `version ${version}`);

/** Return a sentence about a move of an alias. */
function move(adapter, alias, version) {
  const from = adapter.aliases[alias];
  if (from === version) return `${alias} of ${adapter.name} points to version ${version} already; give another alias.`;
  const asked = alias === "live" ? "requests" : `requests for ${adapter.name}@${alias}`;
  return `${alias} of ${adapter.name} moves from ${named(from)} to version ${version}; ${asked} that arrive from then on get version ${version}.`;
}

export async function promote(adapter, version, redraw) {
  const isLive = adapter.live === version;
  const effect = el("p", { "aria-live": "polite" });
  const alias = el("input", { ...RULE, value: isLive ? null : "live", required: true, name: "alias", autocomplete: "off", spellcheck: "false", input: tell });
  tell();
  const done = await confirmation({
    title: `Promote version ${version} of ${adapter.name}`,
    body: [effect, field("Alias", alias, isLive ? "another than live, which points here already" : "live is what the bare name means")],
    button: "Promote",
    change: () => call(adapterPath(adapter.name, "aliases", alias.value), { method: "PUT", body: { version } }),
  });
  if (!done) return;
  announce(`${alias.value} of ${adapter.name} points to version ${version}.`);
  await redraw();

  function tell() {
    effect.textContent = alias.value ? move(adapter, alias.value, version) : isLive ? `Version ${version} is live already.` : "";
    alias.setCustomValidity(adapter.aliases[alias.value] === version ? effect.textContent : "");
  }
}

/** Make the button that rolls back. `previous` is what previousLive returned. */
export function rollBackButton(adapter, previous, redraw) {
  const reason = previous === null ? `The history of live holds no version before ${named(adapter.live)}.` : null;
  return el("button", { type: "button", disabled: reason !== null, title: reason, click: () => rollBack(adapter, previous, redraw) }, "Roll back");
}

async function rollBack(adapter, previous, redraw) {
  let pointer;
  const done = await confirmation({
    title: `Roll back ${adapter.name}`,
    body: [
      el("p", {}, el("strong", {}, `live: ${named(adapter.live)} → ${previous === undefined ? "the version that it pointed to before" : named(previous)}`)),
      el("p", {}, "Requests that arrive from then on get the version before."),
    ],
    button: "Roll back",
    danger: true,
    change: async () => (pointer = await read(adapterPath(adapter.name, "rollback"), { method: "POST" })),
  });
  if (!done) return;
  announce(`Version ${pointer.version} of ${adapter.name} is live again.`);
  await redraw();
}
