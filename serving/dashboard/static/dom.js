// Building elements. Text only ever becomes text: nothing here, or anywhere else on this page, parses markup.

/** An element. `properties`: `class`, `text`, `on` (listeners by event), `data` (data-*), anything else is an attribute. */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") element.className = value;
    else if (name === "text") element.textContent = value;
    else if (name === "on")
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name === "data") Object.assign(element.dataset, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export const byId = (id) => document.getElementById(id);

/** A short word with a tone: `good`, `warning`, `bad`, `unknown` or `plain`. */
export const tag = (text, tone) => el("span", { class: "tag", data: { tone }, text });

/** Term and value pairs; a pair without a value is left out. */
export function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined);
  return el(
    "dl",
    { class: "facts" },
    known.flatMap(([term, value]) => [el("dt", { text: term }), el("dd", {}, value)]),
  );
}

/** The alternative to a chart: closed at first, and built when it is opened. `columns`: [{title, isNumber}]; `rows()`: texts. */
export function tableOf(caption, columns, rows) {
  const place = el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": caption });
  const details = el("details", { class: "table" }, el("summary", { text: "As a table" }), place);
  details.addEventListener("toggle", () => {
    if (!details.open || place.firstChild) return;
    const cls = (column) => (column.isNumber ? "number" : null);
    const head = el(
      "tr",
      {},
      columns.map((column) => el("th", { scope: "col", class: cls(column), text: column.title })),
    );
    const body = rows().map((row) =>
      el(
        "tr",
        {},
        row.map((text, place) => el("td", { class: cls(columns[place]), text })),
      ),
    );
    place.append(
      el("table", {}, el("caption", { class: "unseen", text: caption }), el("thead", {}, head), el("tbody", {}, body)),
    );
  });
  return details;
}

/** Says something once, to eyes and screen readers, for a few seconds. */
export function toast(text) {
  const note = el("p", { text });
  byId("toasts").append(note);
  setTimeout(() => note.remove(), 8000);
}
