// The checks of an upload, in the order in which the server makes them.

import { el } from "../dom.js";
import { count, figure, percent } from "../format.js";
import { problem } from "../problem.js";

// Some checks run at several points. The order is that of docs/bundle-format.md.
const ORDER = ["size", "members", "schema", "signature", "names", "schema", "conversion", "safetensors", "sites", "labels", "finite", "rank", "sites", "foundation", "schema", "template", "golden"];
const MEANING = {
  size: "The zip and its members are within their limits.",
  members: "It is a zip with known files only.",
  schema: "The JSON files have the right form and fit the server.",
  signature: "A trusted key has signed it, where the server demands that.",
  names: "The files and their hashes are those that bundle.json lists.",
  conversion: "Another kind of adapter becomes LoRA within the tolerance.",
  safetensors: "The weights can be read.",
  sites: "The tensors fit the layers of the foundation.",
  labels: "The head has one output for each label.",
  finite: "No weight is NaN or infinite.",
  rank: "The rank is within the server's limit.",
  foundation: "The adapter was made for a foundation of this server.",
  template: "The chat template renders a chat.",
  golden: "The serving path gives the golden outputs.",
};
const STATES = { waiting: "waiting", running: "running", passed: "passed", refused: "refused", open: "not complete", ahead: "not reached" };

/** Return the state of a check after a refusal by another. It passed if it runs no more at or after that one. */
export function stateAfter(check, refused) {
  if (check === refused) return "refused";
  if (ORDER.indexOf(refused) > ORDER.lastIndexOf(check)) return "passed";
  return ORDER.lastIndexOf(refused) < ORDER.indexOf(check) ? "ahead" : "open";
}

/** Make the list of checks: `sent` shows the share of the upload, `passed` and `refused` the result. */
export function checkList() {
  const progress = el("progress", { max: 1, value: 0, "aria-label": "Upload" });
  const stage = el("p", { class: "muted" }, "Sending…");
  const fault = el("div");
  const items = Object.fromEntries(Object.entries(MEANING).map(([check, meaning]) => [check, item(check, meaning)]));
  const list = el("ol", { class: "checks" }, Object.values(items).map((one) => one.element));
  const element = el("section", { class: "panel", "aria-label": "Checks" }, el("h2", {}, "Checks"), stage, progress, fault, list);

  function end(text) {
    stage.textContent = text;
    progress.remove();
  }

  return {
    element,
    sent(share) {
      progress.value = share;
      if (share < 1) {
        stage.textContent = `Sending: ${percent(share)}`;
        return;
      }
      stage.textContent = "The server verifies the bundle…";
      progress.removeAttribute("value");
      for (const one of Object.values(items)) one.set("running");
    },
    passed(verification) {
      end("Every check passed.");
      for (const one of Object.values(items)) one.set("passed");
      const { golden, inputs, max_difference: difference } = verification;
      items.golden.set("passed", golden === "passed"
        ? `${count(inputs)} golden inputs, the outputs differ by at most ${figure(difference)}.`
        : "The bundle has no golden set: a probe gave finite outputs, and nothing was compared.");
      if (!verification.converted) items.conversion.set("passed", "Not needed.");
      if (!verification.chat_template) items.template.set("passed", "Not needed.");
    },
    refused(error) {
      const check = error.code?.startsWith("rejected_") ? error.code.slice("rejected_".length) : null;
      end(check === null ? "The upload was refused before the checks." : `The check “${check}” refused the bundle. Nothing has changed.`);
      for (const [name, one] of Object.entries(items)) one.set(check === null ? "ahead" : stateAfter(name, check));
      fault.replaceChildren(problem(error));
    },
  };
}

function item(check, meaning) {
  const state = el("span", { class: "state" }, STATES.waiting);
  const text = el("span", { class: "meaning" }, meaning);
  const element = el("li", { class: "waiting" }, el("strong", {}, check), text, state);
  return {
    element,
    set(to, sentence = null) {
      element.className = to;
      state.textContent = STATES[to];
      if (sentence !== null) text.textContent = sentence;
    },
  };
}
