// The loop in five steps, each with the last that happened there: what this platform does, told by what it did.
import { byId, el } from "../dom.js";
import { ago, brief, words } from "../format.js";

const JUDGED = ["promote", "reject", "inconclusive"];
const DECIDED = ["train", "skip"];

/** `now`: {overview, snapshot, decisions, promotions}; each null as long as it is not known. */
export function showLoop({ overview, snapshot, decisions, promotions }) {
  const tick = overview?.stats.tick;
  const decided = decisions?.find(({ action }) => DECIDED.includes(action));
  const judged = decisions?.find(({ action }) => JUDGED.includes(action));
  const live = promotions?.[0];
  const rate = snapshot?.predictions_per_second;
  const steps = [
    [
      "Score",
      rate === null || rate === undefined ? "rate unknown" : `${brief(rate)} per second, each one logged`,
      null,
    ],
    ["Watch", tick ? words(tick.verdict) : overview ? "nothing seen yet" : "unknown", tick?.created_at],
    [
      "Decide",
      decided
        ? `${decided.action === "train" ? "train" : "leave it alone"} (${words(decided.trigger_reason)})`
        : none(decisions),
      decided?.created_at,
    ],
    ["Judge", judged ? verdict(judged) : none(decisions), judged?.created_at],
    [
      "Promote",
      live ? `version ${live.model_version} ${live.action === "rollback" ? "back" : "live"}` : none(promotions),
      live?.promoted_at,
    ],
  ];
  byId("loop").replaceChildren(
    ...steps.map(([name, fact, when]) =>
      el(
        "li",
        {},
        el("b", { text: name }),
        el("span", { class: "fact", text: fact }),
        when ? el("span", { class: "when" }, ago(when)) : null,
      ),
    ),
  );
}

const none = (known) => (known ? "nothing yet" : "unknown");

function verdict({ action, failed_gates: failed }) {
  if (action === "promote") return "all gates passed";
  return `${action === "reject" ? "rejected" : "inconclusive"}: ${failed.map(words).join(", ") || "see the decision"}`;
}
