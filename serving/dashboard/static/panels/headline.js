// The state in one sentence, and the reasons for it. The sentence is the API's; if there is none, the state is why.
import { get } from "../api.js";
import { byId, el } from "../dom.js";
import { ago, count, words } from "../format.js";

const MAX_REASONS = 4;

export function showState({
  sentence,
  tone,
  reasons,
  stats,
  use_case: useCase,
  description,
  monitoring_interval_seconds: interval,
}) {
  byId("use-case").textContent = useCase;
  byId("use-case").title = description;
  const isOfLastTick = tone !== "unknown" || stats.tick?.verdict === "insufficient";
  say(sentence, tone, stats.tick && isOfLastTick ? reasons : []);
  const evaluated = byId("evaluated");
  evaluated.replaceChildren();
  if (!stats.tick) {
    if (stats.model_version !== null)
      evaluated.append(`The monitor runs every ${interval} s once there are predictions.`);
    return;
  }
  const { created_at: when, n_predictions: n, n_labels: labels, model_version: version } = stats.tick;
  const verdict = isOfLastTick ? "" : ` Its verdict: ${words(stats.tick.verdict)}.`;
  evaluated.append(
    "Monitored ",
    ago(when),
    `: ${count(n)} predictions of version ${version}, ${count(labels)} with a label.${verdict}`,
  );
  if (!stats.is_overdue && stats.unseen_since === null) evaluated.append(" No predictions since.");
}

/** If the API, or Postgres behind it, is unavailable: the state is unknown, and nothing is shown as good. */
export async function showProblem(error) {
  byId("evaluated").replaceChildren();
  if (error.kind === "unreachable") {
    say("The API is unreachable: the state of the model is unknown.", "unknown", ["The panels below show earlier data."]);
  } else if (error.kind === "unauthorized") {
    say("This service asks for an API key.", "unknown", ["Any key with the scope read shows everything here."]);
  } else if (error.kind === "store_unavailable") {
    say("Postgres is unavailable: the state of the model is unknown.", "unknown", await problemsOfService());
  } else {
    say("The state is unknown.", "unknown", [error.message]);
  }
}

async function problemsOfService() {
  const health = await get("/health").catch(() => null);
  if (!health) return [];
  const scoring =
    health.status === "not_ready" ? "The API cannot score either." : "Scoring is not affected, and no prediction is lost.";
  return [scoring, ...health.problems];
}

function say(sentence, tone, reasons) {
  const shownSentence = byId("sentence");
  byId("state").dataset.tone = tone;
  if (shownSentence.textContent !== sentence) shownSentence.textContent = sentence; // only if it changes: screen readers read it out
  const shown = reasons.slice(0, MAX_REASONS).map((reason) => el("li", { text: reason }));
  const more = reasons.length - MAX_REASONS;
  byId("reasons").replaceChildren(...shown, ...(more > 0 ? [el("li", { text: `and ${more} more` })] : []));
  document.title = `${{ good: "✓", warning: "!", bad: "✕" }[tone] ?? "?"} ${byId("use-case").textContent || "selfheal"}`;
}
