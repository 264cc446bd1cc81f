// Asks before a change. The browser's own dialog keeps the focus inside and closes with Escape.

import { el } from "./dom.js";
import { problem } from "./problem.js";

/**
 * Ask for a confirmation. `change` runs on it; if it fails, the dialog stays open and shows the error.
 * Resolve to true once the change is made, and to false if the user leaves.
 */
export function confirmation({ title, body, button, danger = false, change }) {
  return new Promise((resolve) => {
    const place = el("div");
    const sure = el("button", { class: danger ? "danger" : "main" }, button);
    const form = el(
      "form",
      { method: "dialog", submit: apply },
      el("h2", { id: "dialog-title" }, title),
      body,
      place,
      el(
        "div",
        { class: "actions" },
        el("button", { type: "button", click: () => dialog.close() }, "Cancel"),
        sure,
      ),
    );
    const dialog = el("dialog", { "aria-labelledby": "dialog-title", close: left }, form);
    let made = false;

    async function apply(event) {
      event.preventDefault();
      sure.disabled = true;
      try {
        await change();
        made = true;
        dialog.close();
      } catch (error) {
        place.replaceChildren(problem(error));
        sure.disabled = false;
      }
    }

    function left() {
      dialog.remove();
      resolve(made);
    }

    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Close every open dialog without its change, because the view that asked is gone. */
export function closeDialogs() {
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
}
