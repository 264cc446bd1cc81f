// Shows an error of a call where the user looks.

import { el } from "./dom.js";
import { key } from "./session.js";

/** Make the message of an error, with its code and the request's id. */
export function problem(error) {
  const facts = [error.code, error.id && `request ${error.id}`].filter(Boolean).join(" · ");
  return el(
    "div",
    { class: "problem", role: "alert" },
    el("p", {}, error.message),
    facts ? el("p", { class: "small" }, el("code", {}, facts)) : null,
    error.status === 403 && key() !== null
      ? el("p", { class: "small" }, "Sign out to use another key.")
      : null,
  );
}

/** Run work that fills a place, with a sentence while it waits and the error if it fails. */
export async function filling(place, work, sentence = "Loading…") {
  place.classList.add("stack");
  place.replaceChildren(el("p", { class: "waiting" }, sentence));
  try {
    place.replaceChildren(...[await work()].flat(Infinity));
  } catch (error) {
    if (error.name !== "AbortError") place.replaceChildren(problem(error));
  }
}
