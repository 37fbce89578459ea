// The decisions of the loop, the newest first; each opens to its conditions, its gates and its digests.
import { get } from "../api.js";
import { el, facts, tag } from "../dom.js";
import { empty } from "../panel.js";
import { ago, at, count, moment, words } from "../format.js";
import { gatesOf } from "./gates.js";

const TONES = {
  promote: "good",
  force_promote: "warning",
  rollback: "warning",
  release_labels: "warning",
  reject: "bad",
  inconclusive: "unknown",
  train: "plain",
  skip: "plain",
  declare: "plain",
};
const JUDGED = ["promote", "reject", "inconclusive"];

const details = new Map(); // a decision never changes
const open = new Set();
let isFirstTime = true;

/** `more()` fetches an older page; null if there is none. */
export function showDecisions(body, { decisions, more }, aside) {
  aside.textContent = "newest first";
  if (!decisions.length) {
    body.append(
      empty("There is no decision yet. The first training, and each check whether to retrain, adds one."),
    );
    return;
  }
  const judged = decisions.find(({ action }) => JUDGED.includes(action));
  if (isFirstTime && judged) open.add(judged.decision_id); // one verdict is open at first: it shows what the others contain
  isFirstTime = false;
  body.append(
    el(
      "ul",
      { class: "rows" },
      decisions.map((decision) => el("li", {}, row(decision))),
    ),
  );
  if (more)
    body.append(
      el("p", { class: "more" }, el("button", { type: "button", text: "Older decisions", on: { click: more } })),
    );
}

/** A candidate has no version while the gates judge it. */
function versionsOf(action, from, to) {
  if (to !== null) return from === null ? `version ${to}` : `version ${from} → ${to}`;
  if (from === null) return "";
  return JUDGED.includes(action) ? `against version ${from}` : `while version ${from} served`;
}

function row(decision) {
  const {
    decision_id: id,
    action,
    trigger_reason: trigger,
    created_at: when,
    champion_version: from,
    challenger_version: to,
    reason,
  } = decision;
  const inside = el("div", { class: "inside" });
  const element = el(
    "details",
    { class: "decision" },
    el(
      "summary",
      {},
      el(
        "span",
        { class: "line" },
        tag(words(action), TONES[action]),
        el("b", { text: words(trigger) }),
        el("span", { class: "soft", text: versionsOf(action, from, to) }),
        el("span", { class: "soft push" }, ago(when)),
      ),
      el("span", { class: "why", text: reason }),
    ),
    inside,
  );
  element.addEventListener("toggle", () => {
    if (element.open) open.add(id);
    else open.delete(id);
    if (element.open && !inside.firstChild) fill(inside, id);
  });
  element.open = open.has(id);
  return element;
}

async function fill(inside, id) {
  inside.replaceChildren(el("div", { class: "skeleton" }));
  try {
    if (!details.has(id)) details.set(id, await get(`/decisions/${encodeURIComponent(id)}`));
    inside.replaceChildren(...content(details.get(id)));
  } catch (error) {
    inside.replaceChildren(el("p", { class: "notice", data: { tone: "bad" }, text: error.message }));
  }
}

function content(decision) {
  const { gates, conditions } = decision;
  return [
    gates.length ? gatesOf(gates) : null,
    conditions.length
      ? el(
          "div",
          { class: "gates" },
          el("h4", { text: "Conditions" }),
          conditions.map(({ name, is_met: isMet, reason }) =>
            el(
              "p",
              { class: "line" },
              tag(isMet ? "met" : "not met", isMet ? "good" : "bad"),
              el("b", { text: words(name) }),
              el("span", { class: "said", text: reason }),
            ),
          ),
        )
      : null,
    facts([
      ["decided by", decision.actor],
      ["labels known", count(decision.n_labels)],
      ["relation changed", decision.onset ? changed(decision.onset) : null],
      ["declared", decision.declared?.replace(":", ": ") ?? null],
      ["attempt", decision.attempt ? `${decision.attempt} of episode ${decision.episode_id ?? "–"}` : null],
    ]),
    el(
      "p",
      { class: "digests" },
      digests(decision).flatMap(([name, value]) => [`${name} `, el("code", { text: value }), " "]),
    ),
  ].filter(Boolean);
}

/** When the relation between score and outcome changed: labels count since then. */
function changed({ at: when, low, high, shown_by: by }) {
  return el("span", {}, at(when), ` (${moment(low)} to ${moment(high)}; best seen by ${words(by)}); labels count since then`);
}

/** The first characters of the digests in the decision record. */
function digests({ decision_id: id, hash, prev_hash: before, data_sha256: data, model_sha256: model, cross_fitted_sha256: judged }) {
  const all = [
    ["decision", id],
    ["hash", hash],
    ["after", before],
    ["data", data],
    ["model", model],
    ["judged by", judged],
  ];
  return all.filter(([, value]) => value).map(([name, value]) => [name, value.slice(0, 16)]);
}
