// Chooses the models of a call: one, or several to compare.

import { adapterPath, read } from "../api.js";
import { el, field } from "../dom.js";

const SUGGESTIONS = 20;
const PAUSE_MS = 150;

/** The rows of references. It calls `changed` with them after each change. */
export class ModelChooser {
  constructor(references, signal, changed) {
    this.signal = signal;
    this.changed = changed;
    this.foundations = [];
    this.options = el("datalist", { id: "models" });
    this.rows = el("div", { class: "form" });
    this.add = el("button", { type: "button", class: "small", hidden: true, click: () => this.append("").focus() }, "Compare with another model");
    this.element = el("div", { class: "form" }, this.rows, el("div", { class: "actions" }, this.add), this.options);
    for (const reference of references.length ? references : [""]) this.append(reference);
  }

  /** Return the references that are filled in. */
  get references() {
    return [...this.rows.querySelectorAll("input")].map((input) => input.value.trim()).filter(Boolean);
  }

  /** Fill the first row if nothing is chosen: with the first adapter that is live, else with the foundation. */
  async begin() {
    const limits = await read("v1/limits", { signal: this.signal });
    this.foundations = limits.foundations.map((one) => one.id);
    const page = await this.suggest("");
    if (!this.references.length) {
      const first = page.find((one) => one.live !== null)?.name ?? this.foundations[0];
      this.rows.querySelector("input").value = first;
    }
    this.changed(this.references);
  }

  append(reference) {
    const first = !this.rows.children.length;
    const input = el("input", {
      value: reference, list: "models", autocomplete: "off", spellcheck: "false", placeholder: "name, name@3 or name@alias",
      input: () => {
        clearTimeout(this.pause);
        this.pause = setTimeout(() => this.suggest(input.value), PAUSE_MS);
      },
      change: () => this.changed(this.references),
    });
    const leave = el("button", { type: "button", "aria-label": "Remove this model", click: () => this.remove(row) }, "Remove");
    const row = el("div", { class: "model" }, field(first ? "Model" : "Compared model", input), first ? null : leave);
    this.rows.append(row);
    return input;
  }

  remove(row) {
    row.remove();
    this.changed(this.references);
    this.add.focus();
  }

  /** Suggest names that contain the text, or versions and aliases behind `name@`. Return the adapters found by name. */
  async suggest(text) {
    try {
      if (text.includes("@")) {
        this.offer(await this.selectors(text.split("@")[0]));
        return [];
      }
      const page = await read(`v1/adapters?${new URLSearchParams({ limit: SUGGESTIONS, ...(text ? { search: text } : {}) })}`, { signal: this.signal });
      this.offer([...page.adapters.map((one) => one.name), ...this.foundations]);
      return page.adapters;
    } catch {
      // Suggestions help to type; without them the user types the whole reference.
      return [];
    }
  }

  /** Return the references to an adapter's aliases and to its newest versions. */
  async selectors(name) {
    const { aliases, versions } = await read(adapterPath(name), { signal: this.signal });
    const newest = versions.toReversed().slice(0, SUGGESTIONS).map((one) => one.version);
    return [...Object.keys(aliases), ...newest].map((selector) => `${name}@${selector}`);
  }

  offer(references) {
    this.options.replaceChildren(...references.map((reference) => el("option", { value: reference })));
  }
}
