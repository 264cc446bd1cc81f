// The form that takes a key when the server asks for one.

import { el, field, heading } from "./dom.js";
import { signIn } from "./session.js";

/** Make the form. The key stays in this tab; it is sent with each call and nowhere else. */
export function signInForm() {
  const input = el("input", { type: "password", required: true, autocomplete: "off", name: "key", spellcheck: "false" });
  const form = el(
    "form",
    {
      class: "panel form sign-in",
      submit: (event) => {
        event.preventDefault();
        signIn(input.value.trim());
      },
    },
    field("Key", input),
    el("p", { class: "small muted" }, "The API key allows reading and inference. The admin key also allows changes. The key stays in this tab until it closes."),
    el("div", { class: "actions" }, el("button", { class: "main" }, "Sign in")),
  );
  return [heading("Sign in", "This server asks for a key."), form];
}
