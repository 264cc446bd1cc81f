// The events of the registry, newest first, of one adapter or of all.

import { adapterPath, read } from "../api.js";
import { el, heading, table } from "../dom.js";
import { digest, time } from "../format.js";
import { problem } from "../problem.js";
import { sentence } from "./sentences.js";

const PAGE = 50;

function row(event, ofAll) {
  const name = ofAll ? [el("a", { href: `#/adapters/${encodeURIComponent(event.name)}` }, event.name)] : [];
  const state = event.detail?.digest ? el("code", { class: "muted" }, digest(event.detail.digest)) : null;
  const who = el("span", { class: "muted" }, event.who ?? "–");
  return [el("time", { datetime: event.at, class: "muted" }, time(event.at)), ...name, sentence(event), who, state];
}

/** Make the list of events, which grows on demand. `name` is an adapter, or null for all. */
export async function eventList(name, signal) {
  const path = name === null ? "v1/events" : adapterPath(name, "events");
  const columns = [{ title: "Time" }, ...(name === null ? [{ title: "Adapter", class: "name", bare: true }] : []), { title: "Event", class: "long" }, { title: "By" }, { title: "Digest" }];
  const list = el("div");
  const place = el("div");
  const more = el("button", { type: "button", class: "small", click: extend }, "Show older events");
  let shown = [];
  let next = null;

  async function extend() {
    try {
      const params = new URLSearchParams({ limit: PAGE, ...(next === null ? {} : { before: next }) });
      const page = await read(`${path}?${params}`, { signal });
      shown = [...shown, ...page.events];
      next = page.next;
    } catch (error) {
      if (!shown.length) throw error;
      if (error.name === "AbortError") return;
      place.replaceChildren(problem(error));
      return;
    }
    more.hidden = next === null;
    list.replaceChildren(shown.length ? table("Events", columns, shown.map((one) => row(one, name === null)), true) : el("p", { class: "empty" }, "Nothing has happened yet."));
  }

  await extend();
  return [list, place, el("div", { class: "actions" }, more)];
}

export async function show(place, { signal }) {
  const body = el("section", { class: "panel", "aria-label": "Events" }, el("p", { class: "waiting" }, "Loading…"));
  place.append(heading("Events", "Publications, aliases, splits, shadows, rules, rollbacks and deletions, newest first."), body);
  try {
    body.replaceChildren(...(await eventList(null, signal)));
  } catch (error) {
    body.replaceChildren();
    throw error;
  }
}
