// The form that takes a key when the server asks for one.

import { el, field, heading } from "./dom.js";
import { problem } from "./problem.js";
import { signIn } from "./session.js";

// The server accepts no other key. A browser cannot put other characters in a header.
const SENDABLE = /^[\x21-\x7e]+$/;
const RULE = "A key has visible ASCII characters only, without spaces; check what you have pasted.";

/** Make the form. The key stays in this tab; it is sent with each call and nowhere else. */
export function signInForm() {
  const input = el("input", { type: "password", required: true, autocomplete: "off", name: "key", spellcheck: "false" });
  const place = el("div");
  const form = el(
    "form",
    {
      class: "panel form sign-in",
      submit: (event) => {
        event.preventDefault();
        const text = input.value.trim();
        if (SENDABLE.test(text)) signIn(text);
        else place.replaceChildren(problem(new Error(RULE)));
      },
    },
    field("Key", input),
    place,
    el("p", { class: "small muted" }, "A key of the role predict allows reading and inference. One of the role publish or admin also allows changes. The key stays in this tab until it closes."),
    el("div", { class: "actions" }, el("button", { class: "main" }, "Sign in")),
  );
  return [heading("Sign in", "This server asks for a key."), form];
}
