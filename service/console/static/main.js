// Starts the console: shows the view that the address names, and keeps session and health in the bar.

import { call } from "./api.js";
import { closeDialogs } from "./dialog.js";
import { el } from "./dom.js";
import { problem } from "./problem.js";
import { key, session, signOut } from "./session.js";
import { signInForm } from "./sign_in.js";
import { show as adapter } from "./views/adapter.js";
import { show as adapters } from "./views/adapters.js";
import { show as events } from "./views/events.js";
import { show as live } from "./views/live.js";
import { show as playground } from "./views/playground.js";
import { show as upload } from "./views/upload.js";

const VIEWS = { "": adapters, adapters: adapter, playground, upload, live, events };
const HEALTH_MS = 15_000;

const main = document.getElementById("main");
let leaving = new AbortController();
let started = false;

/** Show the view of the address `#/VIEW/NAME?QUERY`. A view stops its work when its signal is aborted. */
async function route() {
  leaving.abort();
  closeDialogs();
  leaving = new AbortController();
  const { signal } = leaving;
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [view, encoded = ""] = path.split("/");
  for (const link of document.querySelectorAll(".bar nav a")) {
    const here = link.hash.slice(2) === (view === "adapters" ? "" : view);
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const place = el("div", { class: "view" });
  main.replaceChildren(place);
  try {
    const name = decoded(encoded);
    if (!Object.hasOwn(VIEWS, view) || name === null || (view === "adapters" && !name)) {
      place.append(el("h1", { tabindex: "-1" }, "There is no such page"), el("p", {}, el("a", { href: "#/" }, "All adapters")));
      arrive(place);
    } else {
      const work = VIEWS[view](place, { name, query: new URLSearchParams(query), signal });
      arrive(place);
      await work;
    }
  } catch (error) {
    if (error.name === "AbortError" || signal.aborted) return;
    place.append(problem(error));
  }
}

/** Return a part of an address as text, or null if its percent signs stand for no UTF-8. */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return null;
  }
}

function arrive(place) {
  const title = place.querySelector("h1");
  document.title = title ? `${title.textContent} · Rootstock` : "Rootstock";
  // The first view leaves the focus where the browser begins, before the link that skips to the content.
  if (started) title?.focus({ preventScroll: true });
  if (started) scrollTo(0, 0);
  started = true;
}

function askForKey() {
  // A view makes several calls, and each of them may be refused.
  if (main.querySelector(".sign-in")) return;
  leaving.abort();
  // Behind an open dialog the form could not be used.
  closeDialogs();
  const place = el("div", { class: "view" }, signInForm());
  main.replaceChildren(place);
  document.title = "Sign in · Rootstock";
  place.querySelector("input").focus();
}

async function checkHealth() {
  const health = document.getElementById("health");
  try {
    await call("readyz");
    health.textContent = "ready";
    health.classList.remove("down");
  } catch (error) {
    health.textContent = error.status === 503 ? "not ready" : "no answer";
    health.classList.add("down");
  }
  health.hidden = false;
}

const out = document.getElementById("sign-out");
out.addEventListener("click", signOut);
out.hidden = key() === null;
session.addEventListener("changed", () => {
  out.hidden = key() === null;
  route();
});
session.addEventListener("needed", askForKey);
addEventListener("hashchange", (event) => {
  // The link that skips to the content moves the focus, and shows no other view.
  if (location.hash === "#main") history.replaceState(null, "", new URL(event.oldURL).hash || "#/");
  else route();
});
route();
checkHealth();
setInterval(checkHealth, HEALTH_MS);
