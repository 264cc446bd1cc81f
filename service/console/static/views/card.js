// The card of a version, as HTML that the server has made safe.

import { call } from "../api.js";
import { el } from "../dom.js";

// The page's policy lets a script insert HTML through this one rule. Other browsers ignore the policy.
const policy = globalThis.trustedTypes?.createPolicy("card", { createHTML: (html) => html }) ?? { createHTML: (html) => html };

export async function card(name, version, signal) {
  const path = `console/cards/${encodeURIComponent(name)}/${version}`;
  try {
    const html = await (await call(path, { signal })).text();
    const article = el("article", { class: "card" });
    article.innerHTML = policy.createHTML(html);
    for (const table of article.querySelectorAll("table")) {
      const scroll = el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Table of the card" });
      table.replaceWith(scroll);
      scroll.append(table);
    }
    return article;
  } catch (error) {
    if (error.code === "no_card") return el("p", { class: "muted" }, "The bundle has no card (README.md).");
    throw error;
  }
}
