// Generates text: a chat that streams, or the rewriting of a text by an encoder-decoder model.

import { stream } from "../api.js";
import { el, field } from "../dom.js";
import { count, figure, milliseconds } from "../format.js";
import { problem } from "../problem.js";

const number = (name, value, min, max, step) => el("input", { type: "number", name, value, min, max, step });

/** Make the panel of a chat, or of completions if `task` is text2text-generation. `made` is told each call. */
export function generation(reference, task, signal, made) {
  const chats = task === "text-generation";
  // Each conversation has its own list, so that an answer that comes after "Clear" joins no other.
  let messages = [];
  let writing = null;
  const log = el("div", { class: "chat", role: "log", "aria-label": "Conversation", tabindex: "0" });
  const input = el("textarea", { rows: 3, required: true, "aria-label": chats ? "Message" : "Text", placeholder: chats ? "Write a message" : "Write a text, with the prefix of the model's task" });
  const system = el("textarea", { rows: 2 });
  const tokens = number("tokens", 256, 1, 100000, 1);
  const temperature = number("temperature", 0.7, 0, 2, 0.1);
  const send = el("button", { class: "main" }, "Send");
  const stop = el("button", { type: "button", hidden: true, click: () => writing?.abort() }, "Stop");
  const clear = el("button", { type: "button", class: "quiet", click: forget }, "Clear");
  const form = el(
    "form",
    { class: "form", submit: answer, keydown: sendOnEnter },
    input,
    el("details", {}, el("summary", {}, "Options"), el("div", { class: "form" }, chats ? field("System prompt", system) : null, el("div", { class: "pair" }, field("Longest answer in tokens", tokens), field("Temperature", temperature)))),
    el("div", { class: "actions" }, send, stop, clear),
  );

  function sendOnEnter(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.target !== input) return;
    event.preventDefault();
    form.requestSubmit();
  }

  function forget() {
    writing?.abort();
    messages = [];
    log.replaceChildren();
    input.focus();
  }

  function say(role, text) {
    const body = el("p", {}, text);
    const remark = el("p", { class: "muted small" });
    log.append(el("div", { class: `turn ${role}` }, el("p", { class: "role" }, role === "user" ? "You" : reference), body, remark));
    log.scrollTop = log.scrollHeight;
    return [body, remark];
  }

  function request() {
    const options = { max_tokens: Number(tokens.value), temperature: Number(temperature.value), stream: true, stream_options: { include_usage: true } };
    if (!chats) return { path: "v1/completions", body: { model: reference, prompt: messages.at(-1).content, ...options } };
    const first = system.value.trim() ? [{ role: "system", content: system.value.trim() }] : [];
    return { path: "v1/chat/completions", body: { model: reference, messages: [...first, ...messages], ...options } };
  }

  async function answer(event) {
    event.preventDefault();
    if (writing) return;
    const conversation = messages;
    conversation.push({ role: "user", content: input.value });
    say("user", input.value);
    input.value = "";
    const call = request();
    made(call);
    writing = new AbortController();
    [send.disabled, stop.hidden] = [true, false];
    const [body, remark] = say("assistant", "");
    try {
      await read(call, body, remark);
    } catch (error) {
      if (error.name !== "AbortError") remark.replaceWith(problem(error));
      else remark.textContent = "Stopped.";
    }
    // A chat goes on after an answer; a stopped one counts as far as it came.
    conversation.push({ role: "assistant", content: body.textContent });
    if (!body.textContent) conversation.splice(-2);
    writing = null;
    [send.disabled, stop.hidden] = [false, true];
  }

  async function read({ path, body: sent }, body, remark) {
    const begun = performance.now();
    let first = null;
    let [usage, reason] = [null, null];
    for await (const event of stream(path, sent, AbortSignal.any([signal, writing.signal]))) {
      usage = event.usage ?? usage;
      for (const choice of event.choices) {
        const text = choice.delta ? choice.delta.content : choice.text;
        reason = choice.finish_reason ?? reason;
        if (!text) continue;
        first ??= performance.now() - begun;
        body.append(text);
        log.scrollTop = log.scrollHeight;
      }
    }
    const seconds = (performance.now() - begun - (first ?? 0)) / 1000;
    const facts = [first === null ? "no text" : `first text after ${milliseconds(first)}`];
    if (usage) facts.push(`${count(usage.prompt_tokens)} + ${count(usage.completion_tokens)} tokens`);
    if (usage?.completion_tokens > 1 && seconds > 0) facts.push(`${figure((usage.completion_tokens - 1) / seconds)} tokens/s`);
    if (reason === "length") facts.push("cut at the limit of tokens");
    remark.textContent = facts.join(" · ");
  }

  return el("section", { class: "panel", "aria-label": chats ? "Chat" : "Rewriting" }, log, form);
}
