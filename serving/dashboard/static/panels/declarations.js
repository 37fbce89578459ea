// What people have declared about columns and is in force: moves of these are no drift, or what the feed check finds in them no fault.
import { el, tag } from "../dom.js";
import { at, words } from "../format.js";

const ROWS = "_rows"; // stands for a column where whole rows are declared

export function declared(declarations) {
  const inForce = declarations.filter(({ is_in_force: isInForce }) => isInForce);
  const list = inForce.length
    ? el("ul", {}, inForce.map(entry))
    : el("p", { class: "soft", text: "No column is declared seasonal or sound." });
  return el("div", { class: "declared" }, el("h4", { text: "Declared by people" }), list);
}

function entry({ subject, column, actor, declared_at: when, reason }) {
  const what = el("strong", { text: column === ROWS ? "repeated rows" : column });
  return el("li", {}, what, " ", tag(words(subject), "plain"), ` ${actor}, `, at(when), `: ${reason}`);
}
