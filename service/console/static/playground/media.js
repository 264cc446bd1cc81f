// The picker of an image or a recording, with a preview of the file.

import { el } from "../dom.js";
import { dropping } from "../dropping.js";
import { bytes } from "../format.js";

const NAMES = { image: "an image", audio: "a recording" };

/** Return the data URL of a file. Its type may be unknown to the browser. */
export function dataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(file);
  });
}

/** Make the picker of a file of a modality, `image` or `audio`. The form has the file under the name `file`. */
export function picker(modality) {
  const input = el("input", { type: "file", name: "file", accept: `${modality}/*`, class: "file", id: "media", required: true, change: () => show(input.files[0]) });
  const chosen = el("div", { class: "preview", "aria-live": "polite" });
  const drop = el(
    "div",
    { class: "drop" },
    el("strong", {}, `Drop ${NAMES[modality]} here`), input, el("label", { class: "button", for: "media" }, "Choose a file"), chosen,
  );

  async function show(file) {
    chosen.replaceChildren();
    if (!file) return;
    const source = await dataUrl(file);
    if (input.files[0] !== file) return;
    const preview = modality === "image" ? el("img", { src: source, alt: "" }) : el("audio", { src: source, controls: true });
    // Not every browser shows every format that a server reads.
    preview.addEventListener("error", () => preview.remove());
    chosen.replaceChildren(preview, el("span", { class: "muted small" }, `${file.name}, ${bytes(file.size)}`));
  }

  dropping(drop, (file) => {
    if (!file) return;
    const files = new DataTransfer();
    files.items.add(file);
    input.files = files.files;
    show(file);
  });
  return drop;
}
