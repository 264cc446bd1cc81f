// The program that makes the call that was just made: for a shell, in Python and in JavaScript.

import { address } from "../api.js";
import { el } from "../dom.js";
import { key } from "../session.js";

const VARIABLE = "ROOTSTOCK_KEY";
// The longest list or object of a Python program that stands on one line.
const WIDTH = 70;

/** Write a text as one word of a POSIX shell. */
const word = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** Return the fields of a form that sends the same call with the file beside them, each a name and a text. */
function fieldsOf({ inputs: _, models, parameters, ...rest }) {
  return [
    ...Object.entries(rest),
    ...(models ?? []).map((model) => ["models", model]),
    ...(parameters ? [["parameters", JSON.stringify(parameters)]] : []),
  ];
}

/** Return the name of the form's field that holds the file of a call: image or audio. */
const modality = (body) => Object.keys(body.inputs)[0];

function curlForm({ path, body, file }) {
  const parts = [...fieldsOf(body), [modality(body), `@${file}`]];
  return [
    `curl ${word(address(path))}`,
    ...(key() === null ? [] : [`-H "Authorization: Bearer $${VARIABLE}"`]),
    ...parts.map(([name, text]) => `-F ${word(`${name}=${text}`)}`),
  ].join(" \\\n  ");
}

export function curl({ path, body, file }) {
  if (file) return curlForm({ path, body, file });
  const lines = [
    `curl ${body.stream ? "-N " : ""}${word(address(path))}`,
    "-H 'Content-Type: application/json'",
    ...(key() === null ? [] : [`-H "Authorization: Bearer $${VARIABLE}"`]),
    `-d ${word(JSON.stringify(body))}`,
  ];
  return lines.join(" \\\n  ");
}

/** Write a JSON value as a Python literal. */
function literal(value, indent = "") {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  const short = `${open}${parts(value, indent).join(", ")}${close}`;
  if (short.length <= WIDTH && !short.includes("\n")) return short;
  const inner = `${indent}    `;
  return `${open}\n${parts(value, inner).map((one) => `${inner}${one},\n`).join("")}${indent}${close}`;
}

function parts(value, indent) {
  return Array.isArray(value)
    ? value.map((one) => literal(one, indent))
    : Object.entries(value).map(([name, one]) => `${JSON.stringify(name)}: ${literal(one, indent)}`);
}

/** Write the call as a method of the Python client: its name, then its arguments. */
function method({ path, body }) {
  const { model, models, inputs, parameters = {}, stream, stream_options: _, ...rest } = body;
  const truncation = rest.truncation ? { truncation: true } : {};
  const streams = stream ? { stream: true } : {};
  switch (path) {
    case "v1/predict": return models ? ["fan_out", [models, inputs], parameters] : ["predict", [model, inputs], parameters];
    case "v1/embeddings": return ["embed", [model, rest.input], truncation];
    case "v1/rerank": return ["rerank", [model, rest.query, rest.documents], truncation];
    case "v1/chat/completions": return generation("chat", model, "messages", rest, streams);
    default: return generation("complete", model, "prompt", rest, streams);
  }
}

function generation(name, model, field, { [field]: content, ...options }, streams) {
  return [name, [model, content], { ...streams, ...options }];
}

/** Write the call with the Python client, which returns results, or the pieces of a text. */
export function python(made) {
  const file = made.file ? `Path(${JSON.stringify(made.file)})` : null;
  if (made.body.models && made.body.task) return "# The client's fan_out takes no task; use curl or JavaScript.";
  const [name, values, options] = method(made);
  // The class of the result states the task, where it is not the model's first one.
  const result = made.body.task === "fill-mask" ? ["result=FillMaskResult"] : [];
  const words = [...values.map((value, i) => (file && i === 1 ? file : literal(value, "        "))), ...result, ...Object.entries(options).map(([option, value]) => `${option}=${literal(value, "        ")}`)];
  const call = `client.${name}(\n${words.map((one) => `        ${one},\n`).join("")}    )`;
  return [
    ...(key() === null ? [] : ["import os"]),
    ...(file ? ["from pathlib import Path"] : []),
    ...(key() === null && !file ? [] : [""]),
    `from rootstock import Client${result.length ? ", FillMaskResult" : ""}`,
    "",
    `with Client("${address("./").replace(/\/$/, "")}"${key() === null ? "" : `, os.environ["${VARIABLE}"]`}) as client:`,
    ...(made.body.stream ? [`    for piece in ${call}:`, '        print(piece, end="", flush=True)'] : [`    result = ${call}`, "    print(result)"]),
  ].join("\n");
}

function javascriptForm({ path, body, file }) {
  const headers = key() === null ? "" : `\n  headers: { Authorization: \`Bearer \${process.env.${VARIABLE}}\` },`;
  return [
    'const { readFile } = await import("node:fs/promises");',
    "const body = new FormData();",
    ...fieldsOf(body).map(([name, text]) => `body.append(${JSON.stringify(name)}, ${JSON.stringify(text)});`),
    `body.append(${JSON.stringify(modality(body))}, new Blob([await readFile(${JSON.stringify(file)})]), ${JSON.stringify(file)});`,
    `const answer = await fetch("${address(path)}", {`,
    `  method: "POST",${headers}`,
    "  body,",
    "});",
    "if (!answer.ok) throw new Error(await answer.text());",
    "console.log(JSON.stringify(await answer.json()));",
  ].join("\n");
}

export function javascript({ path, body, file }) {
  if (file) return javascriptForm({ path, body, file });
  const authorization = key() === null ? "" : `, Authorization: \`Bearer \${process.env.${VARIABLE}}\``;
  const start = [
    `const body = ${JSON.stringify(body, null, 2)};`,
    `const answer = await fetch("${address(path)}", {`,
    '  method: "POST",',
    `  headers: { "Content-Type": "application/json"${authorization} },`,
    "  body: JSON.stringify(body),",
    "});",
    "if (!answer.ok) throw new Error(await answer.text());",
  ];
  const rest = body.stream
    ? ["for await (const part of answer.body.pipeThrough(new TextDecoderStream())) console.log(part);"]
    : ["console.log(JSON.stringify(await answer.json()));"];
  return [...start, ...rest].join("\n");
}

const LANGUAGES = { curl, Python: python, JavaScript: javascript };

/** Make the panel of the programs for a call, {path, body}. The language stays chosen between calls. */
export function snippets(made) {
  const code = el("code");
  const copy = el("button", { type: "button", class: "small", click: () => copyCode(copy, code.textContent) }, "Copy");
  const buttons = Object.keys(LANGUAGES).map((language) =>
    el("button", { type: "button", class: "small", click: () => choose(language) }, language),
  );

  function choose(language) {
    snippets.language = language;
    for (const button of buttons) button.setAttribute("aria-pressed", button.textContent === language);
    code.textContent = LANGUAGES[language](made);
  }

  choose(snippets.language ?? "curl");
  return el(
    "section",
    { class: "panel", "aria-label": "The same call in a program" },
    el("header", {}, el("h2", {}, "The same call in a program"), el("div", { class: "actions" }, buttons, copy)),
    el("pre", { class: "snippet", tabindex: "0" }, code),
    key() === null ? null : el("p", { class: "muted small" }, `${VARIABLE} stands for your key.`),
  );
}

async function copyCode(button, text) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Select and copy";
  }
}
