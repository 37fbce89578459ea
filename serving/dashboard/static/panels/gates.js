// What a gate measured, against what was asked: a dot with its interval, beside a line.
import { el, svg, tag } from "../dom.js";
import { count, fixed, words } from "../format.js";

const TONES = { PASS: "good", FAIL: "bad", INCONCLUSIVE: "unknown", NOT_APPLICABLE: "plain" };
const ONLY_TOLD = ["segments", "shadow_scoring"];
const FEWER_IS_BETTER = ["brier_degradation"];
const PERCENT = ["f1_improvement", "label_coverage"];

/** The six gates that decide, and what was looked at besides. */
export function gatesOf(gates) {
  const six = gates.filter(({ name }) => !ONLY_TOLD.includes(name));
  const others = gates.filter(({ name }) => ONLY_TOLD.includes(name));
  return el(
    "div",
    { class: "gates" },
    el("h4", { text: `Gates: ${score(six)}` }),
    six.map(row),
    others.length ? el("h4", { text: "Looked at besides" }) : null,
    others.map(row),
  );
}

/** A gate that does not apply may still have measured something. */
function statusOf({ status, value }) {
  if (status === "NOT_APPLICABLE") return value === null ? "not asked" : "reported";
  return status.toLowerCase();
}

function score(six) {
  const n = (...wanted) => six.filter(({ status }) => wanted.includes(status)).length;
  const others = [
    [n("FAIL"), "failed"],
    [n("INCONCLUSIVE"), "inconclusive"],
    [n("NOT_APPLICABLE"), "not asked"],
  ];
  return [
    `${n("PASS")} of ${six.length} passed`,
    ...others.filter(([count]) => count).map(([count, what]) => `${count} ${what}`),
  ].join(", ");
}

function row(gate) {
  return el(
    "div",
    { class: "gate" },
    el("span", { class: "gate-name", text: words(gate.name) }),
    el("span", {}, tag(statusOf(gate), TONES[gate.status])),
    picture(gate) ?? el("span", { class: "soft", text: "–" }),
    el("span", { class: "said", text: gate.sentence }),
  );
}

/** Null where nothing was measured. */
function picture(gate) {
  const { value, threshold, interval_low: low, interval_high: high } = gate;
  if (value === null) return null;
  const numbers = [value, threshold, low, high].filter((number) => number !== null);
  const [least, most] = [Math.min(...numbers), Math.max(...numbers)];
  const margin = (most - least || Math.abs(most) || 1) * 0.15;
  const x = (number) => 4 + (172 * (number - least + margin)) / (most - least + 2 * margin);
  const stroke = (name) => `var(--${name})`;
  const line = (from, to, y1, y2, name, width = 1.5) =>
    svg("line", { x1: x(from), x2: x(to), y1, y2, stroke: stroke(name), "stroke-width": width });
  const parts = [svg("rect", { x: 4, y: 10, width: 172, height: 4, rx: 2, fill: stroke("raised") })];
  if (threshold !== null) parts.push(allowed(gate, x), line(threshold, threshold, 3, 21, "ink"));
  if (low !== null && high !== null)
    parts.push(
      line(low, high, 12, 12, "estimated", 2),
      line(low, low, 8, 16, "estimated"),
      line(high, high, 8, 16, "estimated"),
    );
  parts.push(svg("circle", { cx: x(value), cy: 12, r: 4.5, fill: stroke("estimated") }));
  return svg(
    "svg",
    {
      class: "bar-of",
      viewBox: "0 0 180 24",
      preserveAspectRatio: "xMinYMid",
      role: "img",
      "aria-label": inWords(gate),
    },
    svg("title", {}, inWords(gate)),
    ...parts,
  );
}

function allowed({ name, threshold }, x) {
  const edge = x(threshold);
  const isLeft = FEWER_IS_BETTER.includes(name);
  return svg("rect", {
    x: isLeft ? 4 : edge,
    y: 10,
    width: isLeft ? edge - 4 : 176 - edge,
    height: 4,
    fill: "var(--good)",
    opacity: 0.45,
  });
}

function inWords({ name, value, threshold, interval_low: low, interval_high: high, n_rows: n }) {
  const say = (number) =>
    PERCENT.includes(name) ? `${number.toFixed(1)} %` : name === "labelled_samples" ? count(number) : fixed(number, 4);
  const wanted =
    threshold === null ? "" : `, ${FEWER_IS_BETTER.includes(name) ? "at most" : "at least"} ${say(threshold)} wanted`;
  const between = low === null || high === null ? "" : `, interval ${say(low)} to ${say(high)}`;
  return `${words(name)} ${say(value)}${wanted}${between}${n === null ? "" : `, ${count(n)} rows`}`;
}
