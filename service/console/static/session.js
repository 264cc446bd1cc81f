// The key that a user has given. The browser's tab keeps it, and forgets it when it closes.

const NAME = "rootstock-key";

/** Events of the session: `changed` after signing in or out, `needed` if the server refused a call without a key. */
export const session = new EventTarget();

let held = null;
stored((storage) => (held = storage.getItem(NAME)));

export function key() {
  return held;
}

export function signIn(text) {
  held = text;
  stored((storage) => storage.setItem(NAME, text));
  session.dispatchEvent(new Event("changed"));
}

export function signOut() {
  held = null;
  stored((storage) => storage.removeItem(NAME));
  session.dispatchEvent(new Event("changed"));
}

/** Use the tab's storage. A browser may block it; then the page forgets the key when it is loaded again. */
function stored(use) {
  try {
    use(sessionStorage);
  } catch {
    // The key in memory is enough until then.
  }
}

/** Return the header that carries the key, or nothing without one. */
export function keyHeader() {
  return key() === null ? {} : { Authorization: `Bearer ${key()}` };
}
