// The four cards: the version in production, its rate and latency, and its quality.
import { el, byId, facts, tag } from "../dom.js";
import { ago, brief, count, fixed, METRICS, words } from "../format.js";
import { sparkline } from "../charts.js";

const N_POINTS = 120; // seconds of rate and latency that the curves show

const bodyOf = (id) => byId(id).querySelector(".body");

/** `offerRollback(overview)` returns the button to the previous version, or null. */
export function showServing(overview, offerRollback) {
  const body = bodyOf("serving");
  const { model, probation, is_on_probation: isOnProbation } = overview;
  body.classList.remove("is-stale");
  if (!model) {
    body.replaceChildren(
      el("p", {
        class: "empty",
        text: "No version is in production. `selfheal bootstrap` trains and promotes the first.",
      }),
    );
    return;
  }
  body.replaceChildren(
    el(
      "p",
      { class: "line" },
      el("span", { class: "big", text: `Version ${model.model_version}` }),
      isOnProbation ? tag("on probation", "warning") : null,
    ),
    facts([
      ["since", ago(model.promoted_at)],
      ["trained by", words(model.trigger_reason)],
      ["probation", probation],
    ]),
    ...[offerRollback(overview)].filter(Boolean),
  );
}

export function showFigures(overview) {
  const body = bodyOf("figures");
  const tick = overview.stats.tick;
  body.classList.remove("is-stale");
  const evaluation = overview.model?.metrics ?? {};
  if (!tick) {
    body.replaceChildren(el("p", { class: "empty", text: "Unknown before the first monitoring tick." }));
    return;
  }
  const side = tick.realised ?? tick.estimated;
  const kind = tick.realised ? `realised, ${count(tick.realised.n_rows)} labels` : "estimated, without labels";
  const head = ["", "now", "in evaluation"].map((title) =>
    el("th", { scope: "col", class: title ? "number" : null, text: title }),
  );
  const row = (name) =>
    el(
      "tr",
      {},
      el("th", { scope: "row", text: METRICS[name] }),
      el("td", { class: "number", text: fixed(side[name]) }),
      el("td", { class: "number soft", text: fixed(evaluation[name]) }),
    );
  body.replaceChildren(
    el(
      "p",
      { class: "line" },
      el("span", { class: "big", text: fixed(side.auc_roc) }),
      el("span", { class: "soft", text: "AUC-ROC" }),
    ),
    el(
      "table",
      { class: "small" },
      el("caption", { class: "soft", text: kind }),
      el("thead", {}, el("tr", {}, head)),
      el("tbody", {}, ["auc_roc", "f1", "brier"].map(row)),
    ),
  );
}

/** The cards show earlier data, or (`isErased`) none. */
export function loseCards(isErased) {
  for (const id of ["serving", "figures"]) {
    bodyOf(id).classList.add("is-stale");
    if (isErased || bodyOf(id).querySelector(".skeleton"))
      bodyOf(id).replaceChildren(el("p", { class: "empty", text: "Unknown at the moment." }));
  }
}

/** Draws the rates and latencies of the last two minutes, as sent by the socket. */
export class Traffic {
  #rates = [];
  #latencies = [];
  #parts = null;

  show({ predictions_per_second: rate, latency_p50_ms: p50, latency_p99_ms: p99 }) {
    remember(this.#rates, rate);
    remember(this.#latencies, p99);
    this.#parts ??= this.#build();
    const { rateNow, p50Now, p99Now } = this.#parts;
    rateNow.textContent = rate === null ? "–" : brief(rate);
    p50Now.textContent = p50 === null ? "–" : brief(p50);
    p99Now.textContent = p99 === null ? "–" : brief(p99);
    this.redraw();
  }

  /** The connection is lost: show no earlier numbers. */
  lose() {
    this.#parts ??= this.#build();
    remember(this.#rates, null);
    remember(this.#latencies, null);
    for (const place of [this.#parts.rateNow, this.#parts.p50Now, this.#parts.p99Now]) place.textContent = "–";
    this.redraw();
  }

  redraw() {
    if (!this.#parts) return;
    sparkline(this.#parts.rateCurve, this.#rates, "accent");
    sparkline(this.#parts.latencyCurve, this.#latencies, "accent");
  }

  #build() {
    const number = () => el("span");
    const curve = () => el("canvas", { class: "spark", "aria-hidden": "true" });
    const parts = { rateNow: number(), p50Now: number(), p99Now: number(), rateCurve: curve(), latencyCurve: curve() };
    bodyOf("rate").replaceChildren(
      el("p", { class: "big" }, parts.rateNow),
      parts.rateCurve,
      el("p", { class: "soft", text: "last two minutes, this worker" }),
    );
    bodyOf("latency").replaceChildren(
      el(
        "p",
        { class: "pair" },
        el("span", { class: "big" }, parts.p50Now, el("small", { text: " ms median" })),
        el("span", { class: "big" }, parts.p99Now, el("small", { text: " ms p99" })),
      ),
      parts.latencyCurve,
      el("p", { class: "soft", text: "from arrival to acknowledgement, over 10 s" }),
    );
    return parts;
  }
}

function remember(values, value) {
  values.push(value);
  if (values.length > N_POINTS) values.shift();
}
