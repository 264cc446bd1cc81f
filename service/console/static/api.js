// Calls the server. Addresses are relative to the page, because a proxy may add a prefix.

import { keyHeader, session } from "./session.js";

/** An error that the server answered with, in its common shape; status 0 if it did not answer. */
export class Refusal extends Error {
  constructor(status, error, id) {
    super(error.message);
    this.status = status;
    this.code = error.code;
    this.param = error.param;
    this.id = id;
  }
}

/** Return the absolute address of a path such as `v1/predict`. */
export function address(path) {
  return new URL(path, document.baseURI).href;
}

/** Return the path of an adapter's route. */
export function adapterPath(name, ...rest) {
  return ["v1/adapters", name, ...rest].map((part, i) => (i ? encodeURIComponent(part) : part)).join("/");
}

/** Send a call and return its response. Throw Refusal if it is not a success. */
export async function call(path, { method = "GET", body, signal } = {}) {
  const headers = { ...keyHeader(), ...(body === undefined ? {} : { "Content-Type": "application/json" }) };
  let response;
  try {
    response = await fetch(address(path), { method, headers, signal, body: body && JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw silence();
  }
  if (!response.ok) throw refusal(response.status, parsed(await response.text()), response.headers.get("x-request-id"));
  return response;
}

/** Return the JSON of an answer. */
export async function read(path, options) {
  const response = await call(path, options);
  const answer = parsed(await response.text());
  if (answer === undefined) throw refusal(response.status, undefined, response.headers.get("x-request-id"));
  return answer;
}

/** Return the objects of a stream of server-sent events, one by one, until [DONE]. Throw Refusal for an error in it. */
export async function* stream(path, body, signal) {
  const response = await call(path, { method: "POST", body: { ...body, stream: true }, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines.filter((one) => one.startsWith("data: "))) {
      const data = line.slice(6).trim();
      if (data === "[DONE]") return;
      const event = parsed(data);
      if (!event || event.error) throw refusal(response.status, event, response.headers.get("x-request-id"));
      yield event;
    }
  }
}

/** Send a form and return the JSON of the answer. `sent` is told the share of the form that has been sent. */
export function sendForm(path, form, sent, answered, signal) {
  return new Promise((resolve, reject) => {
    // fetch cannot tell how much of a body has been sent.
    const request = new XMLHttpRequest();
    request.open("POST", address(path));
    for (const [name, value] of Object.entries(keyHeader())) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", (event) => sent(event.loaded / event.total));
    // The body of an upload does not tell whether it made a version.
    request.addEventListener("load", () => answered(request.status));
    request.addEventListener("error", () => reject(silence()));
    request.addEventListener("abort", () => reject(new DOMException("left", "AbortError")));
    request.addEventListener("load", () => {
      const answer = parsed(request.responseText);
      if (request.status < 300 && answer !== undefined) resolve(answer);
      else reject(refusal(request.status, answer, request.getResponseHeader("x-request-id")));
    });
    signal?.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

function silence() {
  return new Refusal(0, { message: "the server does not answer; check that it runs and try again", code: "no_answer" });
}

/** Return the value of a JSON text, or undefined if it is no JSON. */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Return the error in an answer. A proxy between the page and the server answers in a shape of its choice. */
function refusal(status, answer, id) {
  if (status === 401) session.dispatchEvent(new Event("needed"));
  const error = answer?.error;
  if (typeof error?.message === "string") return new Refusal(status, error, id);
  const message = `the answer has the status ${status} and not the server's form; a proxy may have sent it`;
  return new Refusal(status, { message, code: "no_json" }, id);
}
