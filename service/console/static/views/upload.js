// Publishes a bundle: drop a zip, name it, and see which checks it passed.

import { read, sendForm } from "../api.js";
import { announce, el, field, heading } from "../dom.js";
import { dropping } from "../dropping.js";
import { bytes } from "../format.js";
import { checkList } from "./checks.js";

const NAME_RULE = "lower-case letters, digits, dots, dashes and underscores, first a letter or digit";

export async function show(place, { query, signal }) {
  const file = el("input", { type: "file", accept: ".zip,application/zip", class: "file", id: "bundle", change: () => choose(file.files[0]) });
  const chosen = el("p", { class: "muted", "aria-live": "polite" }, "A bundle, or a folder that PEFT saved, as a zip.");
  const drop = el("div", { class: "drop" }, el("strong", {}, "Drop a zip here"), file, el("label", { class: "button", for: "bundle" }, "Choose a file"), chosen);
  const name = el("input", { name: "name", required: true, pattern: "[a-z0-9][a-z0-9._\\-]{0,127}", title: `1 to 128 ${NAME_RULE}`, value: query.get("name") ?? "", autocomplete: "off", spellcheck: "false" });
  const activate = el("input", { type: "checkbox", checked: true });
  const send = el("button", { class: "main" }, "Verify and publish");
  const result = el("div", { class: "view", "aria-live": "polite" });
  const more = plainFields();
  const form = el(
    "form",
    { class: "panel form", "aria-label": "Bundle", submit: publish },
    drop,
    field("Name", name, NAME_RULE),
    el("label", { class: "check" }, activate, el("span", {}, "Make this version live")),
    more.element,
    el("div", { class: "actions" }, send),
  );
  place.append(
    heading("Upload", "The server verifies a bundle before any request can use it."),
    el("div", { class: "columns" }, form, result),
  );
  let bundle = null;
  let turn = 0;
  dropping(drop, choose);
  suggestTasks(more.tasks, signal);

  /** Take a file if it is a zip. A file that is chosen later wins, also if it is read earlier. */
  async function choose(one) {
    if (!one) return;
    const mine = ++turn;
    bundle = null;
    const fault = await faultOf(one);
    if (mine !== turn) return;
    chosen.className = fault === null ? "muted" : "problem";
    chosen.textContent = fault ?? `${one.name}, ${bytes(one.size)}`;
    if (fault !== null) {
      file.value = "";
      return;
    }
    bundle = one;
    if (!name.value) name.value = suggestedName(one.name);
  }

  async function publish(event) {
    event.preventDefault();
    result.replaceChildren();
    if (bundle === null) {
      result.replaceChildren(el("p", { class: "problem", role: "alert" }, "No file is chosen; drop a zip, or choose one."));
      return;
    }
    const checks = checkList();
    result.replaceChildren(checks.element);
    send.disabled = true;
    try {
      let status;
      const form = formOf(bundle, name.value, activate.checked, more.values());
      const live = activate.checked;
      const answer = await sendForm("v1/adapters", form, checks.sent, (one) => (status = one), signal);
      const isNew = status === 201;
      const isLive = live && !answer.awaits_approval;
      checks.passed(answer.verification);
      result.append(outcome(answer, isNew, isLive));
      announce(isNew ? `Version ${answer.version} of ${answer.name} is published.` : `This content is already version ${answer.version} of ${answer.name}.`);
    } catch (error) {
      if (error.name === "AbortError") return;
      checks.refused(error);
    } finally {
      send.disabled = false;
    }
  }
}

/** Return a sentence about a file that is no zip, or null. The first two bytes of a zip are PK. */
async function faultOf(file) {
  if (!file.name.toLowerCase().endsWith(".zip")) return `${file.name} is not a zip: its name does not end with .zip. Pack the bundle's folder as a zip, and choose that file.`;
  const start = await file.slice(0, 2).text().catch(() => null);
  if (start === null) return `${file.name} cannot be read. Pack a folder as a zip, and choose that file.`;
  return start === "PK" ? null : `${file.name} is not a zip: its first bytes are not those of one. Pack the bundle's folder as a zip, and choose that file.`;
}

function suggestedName(file) {
  return file.toLowerCase().replace(/\.zip$/, "").replace(/[^a-z0-9._-]+/g, "-").replace(/^[^a-z0-9]+/, "").slice(0, 128);
}

function formOf(bundle, name, activate, values) {
  const form = new FormData();
  form.set("name", name);
  form.set("activate", String(activate));
  for (const [key, value] of Object.entries(values)) if (value) form.set(key, value);
  form.set("bundle", bundle);
  return form;
}

/** Make the fields for a plain PEFT folder, whose files may not state everything. */
function plainFields() {
  const tasks = el("datalist", { id: "tasks" });
  const controls = {
    task: el("input", { list: "tasks", autocomplete: "off" }),
    labels: el("textarea", { rows: 3, placeholder: "negative\nneutral\npositive" }),
    problem_type: el("select", {}, ["", "single_label_classification", "multi_label_classification", "regression"].map((one) => el("option", {}, one))),
    max_length: el("input", { type: "number", min: 1, step: 1 }),
    foundation: el("input", { autocomplete: "off" }),
  };
  const element = el(
    "details",
    {},
    el("summary", {}, "For a plain PEFT folder: values that its files do not state"),
    el(
      "div",
      { class: "form" },
      field("Task", controls.task),
      field("Labels", controls.labels, "one a line, in the order of their ids"),
      el("div", { class: "pair" }, field("Problem type", controls.problem_type), field("Longest input in tokens", controls.max_length)),
      field("Foundation", controls.foundation, "if adapter_config.json states another"),
      tasks,
    ),
  );
  const values = () => {
    const labels = controls.labels.value.split("\n").map((one) => one.trim()).filter(Boolean);
    const written = Object.fromEntries(Object.entries(controls).map(([key, control]) => [key, control.value.trim()]));
    return { ...written, labels: labels.length ? JSON.stringify(labels) : "" };
  };
  return { element, tasks, values };
}

async function suggestTasks(tasks, signal) {
  try {
    const limits = await read("v1/limits", { signal });
    tasks.replaceChildren(...limits.tasks.map((task) => el("option", { value: task })));
  } catch {
    // Suggestions help to type; the server names the tasks if one is wrong.
  }
}

/** Make the panel of an upload's result. `isNew` tells whether it made a version, `live` whether it moved the alias. */
function outcome(answer, isNew, live) {
  const name = encodeURIComponent(answer.name);
  const { verification } = answer;
  const remarks = [
    ...(answer.awaits_approval ? ["It awaits approval. Somebody who may approve it makes it live."] : []),
    ...verification.warnings,
    ...(verification.ignored.length ? [`Left out of the bundle: ${verification.ignored.join(", ")}.`] : []),
    ...(verification.converted ? [`Converted from ${verification.converted.from} to LoRA of rank ${verification.converted.rank}.`] : []),
  ];
  return el(
    "section",
    { class: "panel", "aria-label": isNew ? "Published" : "Not published" },
    el("h2", {}, isNew ? `${answer.name} v${answer.version} is published${live ? " and live" : ""}` : `This content is already version ${answer.version} of ${answer.name}`),
    isNew ? null : el("p", {}, `Nothing new is published. ${live ? `live points to version ${answer.version}.` : "No alias has moved."}`),
    el("p", { class: "muted" }, answer.task, " · ", el("code", {}, answer.digest)),
    remarks.length ? el("ul", { class: "remarks" }, remarks.map((one) => el("li", {}, one))) : null,
    el("div", { class: "actions" }, el("a", { class: "button main", href: `#/playground?model=${live ? name : `${name}@${answer.version}`}` }, "Try it"), el("a", { class: "button", href: `#/adapters/${name}` }, "Show the adapter")),
  );
}
