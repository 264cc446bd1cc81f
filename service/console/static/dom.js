// Makes elements. Text from the server becomes text nodes, so that a name or a label is never read as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** Make an HTML element. Functions are listeners, `true` and `false` switch an attribute, null leaves it out. */
export function el(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Make an SVG element. */
export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

/** Make the heading of a view, with a sentence below it and buttons beside it. The router moves the focus to it. */
export function heading(title, sentence = null, ...actions) {
  return el(
    "div",
    { class: "head" },
    el("h1", { tabindex: "-1" }, title),
    actions.length ? el("div", { class: "actions" }, actions) : null,
    sentence ? el("p", { class: "sub" }, sentence) : null,
  );
}

/** Make a panel with a title. */
export function panel(title, actions, ...children) {
  const head = el("header", {}, el("h2", {}, title), actions ? el("div", { class: "actions" }, actions) : null);
  return el("section", { class: "panel", "aria-label": title }, head, children);
}

let fields = 0;

/** Make a control with its label. `hint` is a remark behind the label. */
export function field(label, control, hint = null) {
  control.id ||= `field-${++fields}`;
  const name = el("label", { for: control.id }, label, hint ? el("span", { class: "hint" }, ` ${hint}`) : null);
  return el("div", { class: "field" }, name, control);
}

/** Make a table. A column is {title, class}, a cell is a node, a text or null. `cards` stacks rows on narrow screens. */
export function table(caption, columns, rows, cards = false) {
  const head = columns.map((column) => el("th", { scope: "col", class: column.class }, column.title));
  const body = rows.map((cells) =>
    el(
      "tr",
      {},
      cells.map((cell, i) =>
        el("td", { class: columns[i].class, "data-label": columns[i].bare ? null : columns[i].title }, cell),
      ),
    ),
  );
  return el(
    "div",
    { class: "scroll", tabindex: "0", role: "group", "aria-label": `Table: ${caption}` },
    el("table", { class: cards ? "cards" : null }, el("thead", {}, el("tr", {}, head)), el("tbody", {}, body)),
  );
}

/** Announce a sentence to the user, also to a screen reader, for some seconds. */
export function announce(sentence) {
  const notice = document.getElementById("notice");
  notice.textContent = sentence;
  clearTimeout(announce.timer);
  announce.timer = setTimeout(() => (notice.textContent = ""), 6000);
}
