// The loop in five steps, each with its latest event.
import { byId, el } from "../dom.js";
import { ago, brief, words } from "../format.js";

const JUDGED = ["promote", "reject", "inconclusive"];
const DECIDED = ["train", "skip"];

/** `now`: {overview, snapshot, decisions, promotions}; each null if unknown. */
export function showLoop({ overview, snapshot, decisions, promotions }) {
  const tick = overview?.stats.tick;
  const decided = decisions?.find(({ action }) => DECIDED.includes(action));
  const judged = decisions?.find(({ action }) => JUDGED.includes(action));
  const live = promotions?.[0];
  const rate = snapshot?.predictions_per_second;
  const steps = [
    [
      "Score",
      rate === null || rate === undefined ? "rate unknown" : `${brief(rate)} per second, all logged`,
      null,
    ],
    ["Watch", tick ? words(tick.verdict) : overview ? "no tick yet" : "unknown", tick?.created_at],
    [
      "Decide",
      decided
        ? `${decided.action === "train" ? "train" : "do nothing"} (${words(decided.trigger_reason)})`
        : none(decisions),
      decided?.created_at,
    ],
    ["Judge", judged ? verdict(judged) : none(decisions), judged?.created_at],
    [
      "Promote",
      live
        ? live.action === "rollback"
          ? `rolled back to version ${live.model_version}`
          : `version ${live.model_version} live`
        : none(promotions),
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
