// Proxy metrics: what the predictions show without labels.
import { byVersion, draw, lineWithBand, overTime } from "../charts.js";
import { el, tableOf } from "../dom.js";
import { empty } from "../panel.js";
import { count, fixed, moment, percent } from "../format.js";

const SHOWN = [
  {
    name: "positive_rate",
    title: "Predicted positive",
    of: (value) => 100 * value,
    suffix: " %",
    digits: ".2~f",
    say: (value) => percent(value, 2),
  },
  { name: "probability_mean", title: "Mean probability", say: (value) => fixed(value) },
  { name: "probability_std", title: "Spread (standard deviation)", say: (value) => fixed(value) },
  { name: "entropy", title: "Entropy, bits", say: (value) => fixed(value) },
];

export function showProxies(body, { history }, aside) {
  const { steps } = history;
  aside.textContent = steps.length ? `${count(steps.at(-1).n_predictions)} predictions in the latest window` : "";
  if (!steps.length) {
    body.append(empty("There is no monitoring tick in this period."));
    return;
  }
  const places = SHOWN.map((metric) => [metric, el("div", { class: "chart short" })]);
  const latest = ({ name, say }) => say(steps.at(-1)[name]);
  body.append(
    el(
      "div",
      { class: "charts" },
      places.map(([metric, place]) =>
        el("div", {}, el("h4", {}, metric.title, el("span", { class: "soft number", text: latest(metric) })), place),
      ),
    ),
    table(history),
  );
  for (const [metric, place] of places) {
    const point = (step) => ({
      at: step.evaluated_at,
      value: step[metric.name] === null ? null : (metric.of ?? Number)(step[metric.name]),
    });
    const lines = byVersion(steps).flatMap((run) => lineWithBand(metric.title.toLowerCase(), run.map(point), "accent"));
    const label = `${metric.title} over time, now ${latest(metric)}; the table below has the numbers`;
    draw(place, label, lines, overTime(history, { suffix: metric.suffix ?? "", digits: metric.digits }));
  }
}

function table({ steps }) {
  const columns = [
    { title: "Time of the tick" },
    { title: "Predictions", isNumber: true },
    { title: "Labels", isNumber: true },
    ...SHOWN.map(({ title }) => ({ title, isNumber: true })),
  ];
  return tableOf("Proxy metrics over time", columns, () =>
    steps
      .toReversed()
      .map((step) => [
        moment(step.evaluated_at),
        count(step.n_predictions),
        count(step.n_labels),
        ...SHOWN.map(({ name, say }) => say(step[name])),
      ]),
  );
}
