// The key that a user has given. The browser's tab keeps it, and forgets it when it closes.

const NAME = "rootstock-key";

/** Events of the session: `changed` after signing in or out, `needed` if the server refused a call without a key. */
export const session = new EventTarget();

export function key() {
  return sessionStorage.getItem(NAME);
}

export function signIn(text) {
  sessionStorage.setItem(NAME, text);
  session.dispatchEvent(new Event("changed"));
}

export function signOut() {
  sessionStorage.removeItem(NAME);
  session.dispatchEvent(new Event("changed"));
}

/** Return the header that carries the key, or nothing without one. */
export function keyHeader() {
  return key() === null ? {} : { Authorization: `Bearer ${key()}` };
}
