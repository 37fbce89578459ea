// Numbers, times and names for people. Unknown values are "unknown", never 0.
import { el } from "./dom.js";

export const UNKNOWN = "unknown";

const isUnknown = (value) => value === null || value === undefined || Number.isNaN(value);

export const fixed = (value, digits = 3) => (isUnknown(value) ? UNKNOWN : value.toFixed(digits));
export const percent = (share, digits = 1) => (isUnknown(share) ? UNKNOWN : `${(100 * share).toFixed(digits)} %`);
export const count = (value) => (isUnknown(value) ? UNKNOWN : value.toLocaleString("en"));

/** For rates and latencies: three significant digits at most. */
export function brief(value) {
  if (isUnknown(value)) return UNKNOWN;
  if (value >= 100) return Math.round(value).toLocaleString("en");
  return value >= 10 || value === 0 ? value.toFixed(value === 0 ? 0 : 1) : value.toFixed(2);
}

export const words = (name) => name.replaceAll("_", " ");

export const VERDICTS = {
  stable: "good",
  benign_shift: "warning",
  harmful_shift: "bad",
  broken_feed: "bad",
  insufficient: "unknown",
};
export const SEVERITIES = { critical: "bad", warning: "warning", info: "plain" };
export const METRICS = { auc_roc: "AUC-ROC", f1: "F1", brier: "Brier score", precision: "Precision", recall: "Recall" };

/** A duration in its two largest units, as the command line says it. */
export function span(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  const units = [
    [Math.floor(whole / 86400), "d"],
    [Math.floor(whole / 3600) % 24, "h"],
    [Math.floor(whole / 60) % 60, "min"],
  ];
  const first = units.findIndex(([n]) => n > 0);
  return units
    .slice(first, first + 2)
    .filter(([n]) => n > 0)
    .map(([n, unit]) => `${n} ${unit}`)
    .join(" ");
}

const MOMENT = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

export const moment = (iso) => (iso ? MOMENT.format(new Date(iso)) : UNKNOWN);
const utc = (iso) => `${new Date(iso).toISOString().slice(0, 19).replace("T", " ")} UTC`;

function relative(iso) {
  const seconds = (Date.now() - new Date(iso).getTime()) / 1000;
  return seconds >= 0 ? `${span(seconds)} ago` : `in ${span(-seconds)}`;
}

/** A `<time>` that shows how long ago it was, is updated, and has the exact moment in its title. */
export function ago(iso) {
  return el("time", {
    datetime: iso,
    title: `${moment(iso)} (${utc(iso)})`,
    data: { relative: "" },
    text: relative(iso),
  });
}

/** A `<time>` with the moment itself. */
export const at = (iso) => el("time", { datetime: iso, title: utc(iso), text: moment(iso) });

export function updateRelativeTimes() {
  setInterval(() => {
    for (const time of document.querySelectorAll("time[data-relative]")) {
      const text = relative(time.dateTime);
      if (time.textContent !== text) time.textContent = text;
    }
  }, 5000);
}
