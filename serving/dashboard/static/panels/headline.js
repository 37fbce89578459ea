// The state in one sentence, and what it rests on. The sentence is the API's; if the API cannot tell, why it cannot is the state.
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
  const isOfLastLook = tone !== "unknown" || stats.tick?.verdict === "insufficient";
  say(sentence, tone, stats.tick && isOfLastLook ? reasons : []);
  const looked = byId("looked");
  looked.replaceChildren();
  if (!stats.tick) {
    if (stats.model_version !== null)
      looked.append(`The monitor looks every ${interval} s once predictions have come.`);
    return;
  }
  const { created_at: when, n_predictions: n, n_labels: labels, model_version: version } = stats.tick;
  const verdict = isOfLastLook ? "" : ` The verdict then: ${words(stats.tick.verdict)}.`;
  looked.append(
    "Looked ",
    ago(when),
    ` at ${count(n)} predictions of version ${version}, ${count(labels)} with a label.${verdict}`,
  );
  if (!stats.is_overdue && stats.unseen_since === null) looked.append(" Nothing has come since.");
}

/** For when the API, or Postgres behind it, tells nothing: nothing is known, and nothing is painted green. */
export async function showProblem(error) {
  byId("looked").replaceChildren();
  if (error.kind === "unreachable") {
    say("The API does not answer: how the model does is unknown.", "unknown", ["What is shown below is of before."]);
  } else if (error.kind === "unauthorized") {
    say("This service asks for an API key.", "unknown", ["Any key with the scope read sees everything here."]);
  } else if (error.kind === "store_unavailable") {
    say("Postgres does not answer: how the model does is unknown.", "unknown", await problemsOfService());
  } else {
    say("The state cannot be told.", "unknown", [error.message]);
  }
}

async function problemsOfService() {
  const health = await get("/health").catch(() => null);
  if (!health) return [];
  const scoring =
    health.status === "not_ready" ? "The API does not score either." : "The API goes on scoring and loses nothing.";
  return [scoring, ...health.problems];
}

function say(sentence, tone, reasons) {
  const said = byId("sentence");
  byId("state").dataset.tone = tone;
  if (said.textContent !== sentence) said.textContent = sentence; // once: it is read out
  const shown = reasons.slice(0, MAX_REASONS).map((reason) => el("li", { text: reason }));
  const more = reasons.length - MAX_REASONS;
  byId("reasons").replaceChildren(...shown, ...(more > 0 ? [el("li", { text: `and ${more} more` })] : []));
  document.title = `${{ good: "✓", warning: "!", bad: "✕" }[tone] ?? "?"} ${byId("use-case").textContent || "selfheal"}`;
}
