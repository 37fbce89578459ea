// Estimated and realised performance with their intervals, and where another version went live.
import { byVersion, draw, lineWithBand, overTime } from "../charts.js";
import { el, tableOf, tag } from "../dom.js";
import { empty } from "../panel.js";
import { fixed, METRICS, moment, span, UNKNOWN } from "../format.js";

const SHOWN = ["auc_roc", "f1", "brier"];

/** `evaluation`: the metrics of the version in production at its training. */
export function showQuality(body, { history, evaluation }, aside) {
  const known = history.steps.filter(
    ({ estimated, realised }) => Object.keys(estimated).length || Object.keys(realised).length,
  );
  aside.textContent = "95 % intervals";
  if (!known.length) {
    body.append(
      empty(
        "The quality in this period is unknown: it needs labels (POST /labels), or enough predictions for an estimate.",
      ),
      ...labels(history.labels),
    );
    return;
  }
  const places = SHOWN.map((name) => [name, el("div", { class: "chart" })]);
  body.append(
    el(
      "div",
      { class: "charts" },
      places.map(([name, place]) =>
        el(
          "div",
          {},
          el(
            "h4",
            {},
            `${METRICS[name]}${name === "brier" ? " (lower is better)" : ""}`,
            el("span", { class: "soft number", text: latest(history, name) }),
          ),
          place,
        ),
      ),
    ),
    legend(),
    table(history),
    ...labels(history.labels),
  );
  for (const [name, place] of places) {
    const lines = (side) =>
      byVersion(history.steps).flatMap((run) =>
        lineWithBand(
          side,
          run.map((step) => ({ at: step.evaluated_at, value: null, ...step[side][name] })),
          side,
          `${side}-band`,
        ),
      );
    const data = [...lines("estimated"), ...lines("realised")];
    draw(
      place,
      `${METRICS[name]} over time: ${latest(history, name)}; the table below has the numbers`,
      data,
      overTime(history, { level: evaluation?.[name] ?? null }),
    );
  }
}

/** The latest values of the latest version only: those of another version do not apply to it. */
function latest({ steps }, name) {
  const ofLast = byVersion(steps).at(-1);
  const values = ["realised", "estimated"].map((side) => {
    const found = ofLast.findLast((step) => step[side][name])?.[side][name];
    return found ? `${side} ${withInterval(found)}` : null;
  });
  return values.filter(Boolean).join(", ") || "unknown";
}

const withInterval = ({ value, low, high }) =>
  low === null ? fixed(value) : `${fixed(value)} (${fixed(low)} to ${fixed(high)})`;

/** How complete the labels are by class, and what is withheld because of them; nothing if the newest tick does not tell. */
function labels(state) {
  if (!state) return [];
  const titles = ["", "95 % come within", "labelled, if mature"];
  const row = ({ label, mostly_after_seconds: age, labelled_pct: share }) =>
    el(
      "tr",
      {},
      el("th", { scope: "row", text: `Class ${label}` }),
      el("td", { class: "number", text: age === null ? UNKNOWN : span(age) }),
      el("td", { class: "number", text: share === null ? UNKNOWN : `${Math.round(share)} %` }),
    );
  const parts = [
    el("h4", { text: "Labels" }),
    ...state.withheld.map((text) => el("p", {}, tag("withheld", "warning"), ` ${text}.`)),
    state.withheld.some((text) => text.includes(state.sentence))
      ? null
      : el("p", { class: "soft", text: `${state.sentence}.` }),
    el(
      "table",
      { class: "small" },
      el("caption", { class: "unseen", text: "Labels by class" }),
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          titles.map((text) => el("th", { scope: "col", class: text ? "number" : null, text })),
        ),
      ),
      el("tbody", {}, state.classes.map(row)),
    ),
  ];
  return parts.filter(Boolean);
}

function legend() {
  const entry = (swatch, text) => el("span", {}, el("span", { class: `swatch ${swatch}` }), text);
  return el(
    "p",
    { class: "legend" },
    entry("realised", "realised, by labels"),
    entry("estimated", "estimated, without labels"),
    entry("event", "another version went live (dotted: a rollback)"),
    entry("change", "the relation of score and outcome changed, with its 95 % interval"),
    el("span", { text: "Dotted level: in evaluation." }),
  );
}

function table(history) {
  const columns = [
    { title: "Time of the tick" },
    { title: "Version", isNumber: true },
    ...SHOWN.flatMap((name) => [{ title: `${METRICS[name]}, realised` }, { title: "estimated" }]),
  ];
  return tableOf("Quality over time", columns, () =>
    history.steps
      .toReversed()
      .map((step) => [
        moment(step.evaluated_at),
        String(step.model_version),
        ...SHOWN.flatMap((name) =>
          ["realised", "estimated"].map((side) => (step[side][name] ? withInterval(step[side][name]) : "unknown")),
        ),
      ]),
  );
}
