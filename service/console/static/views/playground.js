// Tries models: the fields of the model's task, its answer, and the program that makes the same call.

import { read } from "../api.js";
import { el, field, heading } from "../dom.js";
import { digest, milliseconds } from "../format.js";
import { generation } from "../playground/chat.js";
import { ModelChooser } from "../playground/models.js";
import { snippets } from "../playground/snippets.js";
import { TASKS, cutting, resultsOf } from "../playground/tasks.js";
import { filling, problem } from "../problem.js";

const GENERATES = ["text-generation", "text2text-generation"];
// The tasks whose inputs are files, which are never cut.
const FILES = /^(image|audio)-/;

export async function show(place, { query, signal }) {
  const task = el("select", { change: () => choose(task.value) });
  const taskField = field("Task", task);
  taskField.hidden = true;
  const fault = el("div");
  const chooser = new ModelChooser(query.getAll("model"), signal, look);
  const left = el("div", { class: "view" });
  const right = el("div", { class: "view" });
  const program = el("div", { class: "view" });
  place.append(
    heading("Playground", "Try a model, or compare several on the same input."),
    el("section", { class: "panel models", "aria-label": "Models" }, chooser.element, taskField, fault),
    el("div", { class: "columns" }, left, right),
    program,
  );
  let described = null;
  let shown = null;
  let turn = 0;

  const model = (reference) => read(`v1/models/${reference.split("/").map(encodeURIComponent).join("/")}`, { signal });

  /** Return whether all models have a task. The call itself shows the error of a model that cannot be looked up. */
  async function haveTask(references, asked) {
    const found = await Promise.allSettled(references.slice(1).map(model));
    return found.every(({ value }) => value === undefined || value.tasks[0] === asked);
  }

  /** Look up the tasks of the first model, and show the fields of one of them. */
  async function look(references) {
    const mine = ++turn;
    fault.replaceChildren();
    history.replaceState(null, "", `#/playground?${new URLSearchParams(references.map((one) => ["model", one]))}`);
    if (!references.length) return;
    try {
      const found = await model(references[0]);
      if (mine !== turn) return;
      described = found;
    } catch (error) {
      if (error.name === "AbortError" || mine !== turn) return;
      fault.replaceChildren(problem(error));
      return;
    }
    const known = described.tasks.filter((one) => one in TASKS || GENERATES.includes(one));
    if (!known.length) {
      fault.replaceChildren(problem({ message: `the console has no form for the task ${described.tasks.join(", ")}; use the API` }));
      return;
    }
    task.replaceChildren(...known.map((one) => el("option", {}, one)));
    taskField.hidden = known.length < 2;
    choose(known.includes(shown?.task) ? shown.task : known[0]);
  }

  function choose(chosen) {
    task.value = chosen;
    const reference = chooser.references[0];
    const generates = GENERATES.includes(chosen);
    chooser.add.hidden = generates;
    // The fields keep what the user has written while the task stays.
    if (shown?.task === chosen && (!generates || shown.reference === reference)) return;
    shown = { task: chosen, reference };
    right.replaceChildren();
    program.replaceChildren();
    const made = (call) => program.replaceChildren(snippets(call));
    if (generates) left.replaceChildren(generation(reference, chosen, signal, made));
    else left.replaceChildren(inputs(chosen, made));
    left.parentElement.classList.toggle("one", generates);
  }

  function inputs(chosen, made) {
    const run = el("button", { class: "main" }, "Run");
    const form = el(
      "form",
      {
        class: "panel form", "aria-label": "Input",
        submit: (event) => {
          event.preventDefault();
          compute(chosen, form, run, made);
        },
        keydown: (event) => {
          if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
        },
      },
      el("header", {}, el("h2", {}, chosen)),
      TASKS[chosen].fields(),
      FILES.test(chosen) ? null : el("label", { class: "check" }, el("input", { type: "checkbox", name: "cut" }), el("span", {}, "Cut long texts")),
      el("div", { class: "actions" }, run, el("span", { class: "muted small" }, "or Ctrl + Enter")),
    );
    return form;
  }

  async function compute(chosen, form, run, made) {
    const values = Object.fromEntries(new FormData(form));
    const references = chooser.references;
    run.disabled = true;
    const plain = await TASKS[chosen].call(references, values, await haveTask(references, chosen));
    const call = values.cut ? cutting(plain) : plain;
    // A foundation has several tasks, and the first is its default.
    if (call.path === "v1/predict" && chosen !== described.tasks[0]) call.body.task = chosen;
    left.parentElement.classList.toggle("one", references.length > 1);
    const answer = el("section", { class: "panel", "aria-label": "Answer", "aria-live": "polite" });
    right.replaceChildren(answer);
    await filling(answer, async () => {
      const results = resultsOf(call.path, await read(call.path, { method: "POST", body: call.body, signal }));
      return el("div", { class: "outcomes" }, results.map((result) => outcome(result, chosen, values)));
    }, "Computing…");
    run.disabled = false;
    made(call);
  }

  await chooser.begin();
}

/** Make the view of one model's result: its predictions, or its error. */
function outcome(result, task, values) {
  const title = el("h3", {}, result.model, result.version ? el("span", { class: "badge" }, `v${result.version}`) : null);
  const of = (body) => el("article", { class: "outcome", "aria-label": result.model }, title, body);
  if (result.error) return of(problem(result.error));
  if (result.task && result.task !== task) {
    return of(el("p", { class: "muted" }, `Its task is ${result.task}, so its answer is not comparable.`));
  }
  const facts = [
    result.digest && digest(result.digest),
    `${result.usage.prompt_tokens} tokens`,
    result.timings && `${milliseconds(result.timings.total_ms)}: queue ${milliseconds(result.timings.queue_ms)}, inference ${milliseconds(result.timings.inference_ms)}`,
  ].filter(Boolean);
  return of([TASKS[task].view(result.predictions, values), el("p", { class: "muted small" }, facts.join(" · "))]);
}
