// Estimated and realised performance with their intervals, and where another version went live.
import { byVersion, draw, lineWithBand, overTime } from "../charts.js";
import { el, tableOf } from "../dom.js";
import { empty } from "../panel.js";
import { fixed, METRICS, moment } from "../format.js";

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
