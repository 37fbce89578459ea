// What a gate measured, against what was asked: a dot with its interval, beside a line.
import { el, svg, tag } from "../dom.js";
import { count, fixed, words } from "../format.js";

const TONES = { PASS: "good", FAIL: "bad", INCONCLUSIVE: "unknown", NOT_APPLICABLE: "plain" };
const WANTED = { at_least: "at least", at_most: "at most" };

/** The gates that are counted, and what is reported beside them. */
export function gatesOf(gates) {
  const counted = gates.filter((gate) => gate.is_counted);
  const others = gates.filter((gate) => !gate.is_counted);
  return el(
    "div",
    { class: "gates" },
    el("h4", { text: `Gates: ${score(counted)}` }),
    counted.map(row),
    others.length ? el("h4", { text: "Reported beside them" }) : null,
    others.map(row),
  );
}

/** A gate that does not apply may still have measured something. */
function statusOf({ status, value }) {
  if (status === "NOT_APPLICABLE") return value === null ? "not asked" : "reported";
  return status.toLowerCase();
}

function score(counted) {
  const n = (...wanted) => counted.filter(({ status }) => wanted.includes(status)).length;
  const others = [
    [n("FAIL"), "failed"],
    [n("INCONCLUSIVE"), "inconclusive"],
    [n("NOT_APPLICABLE"), "not asked"],
  ];
  return [
    `${n("PASS")} of ${counted.length} passed`,
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
  const { value, threshold, direction, interval_low: low, interval_high: high } = gate;
  if (value === null) return null;
  const numbers = [value, threshold, low, high].filter((number) => number !== null);
  const [least, most] = [Math.min(...numbers), Math.max(...numbers)];
  const margin = (most - least || Math.abs(most) || 1) * 0.15;
  const x = (number) => 4 + (172 * (number - least + margin)) / (most - least + 2 * margin);
  const stroke = (name) => `var(--${name})`;
  const line = (from, to, y1, y2, name, width = 1.5) =>
    svg("line", { x1: x(from), x2: x(to), y1, y2, stroke: stroke(name), "stroke-width": width });
  const parts = [svg("rect", { x: 4, y: 10, width: 172, height: 4, rx: 2, fill: stroke("raised") })];
  if (threshold !== null && direction !== null) parts.push(allowed(gate, x));
  if (threshold !== null) parts.push(line(threshold, threshold, 3, 21, "ink"));
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

/** The side of the threshold on which a value passes. */
function allowed({ direction, threshold }, x) {
  const edge = x(threshold);
  const isLeft = direction === "at_most";
  return svg("rect", {
    x: isLeft ? 4 : edge,
    y: 10,
    width: isLeft ? edge - 4 : 176 - edge,
    height: 4,
    fill: "var(--good)",
    opacity: 0.45,
  });
}

function inWords({ name, value, threshold, interval_low: low, interval_high: high, n_rows: n, direction, unit }) {
  const say = (number) =>
    unit === "percent" ? `${number.toFixed(1)} %` : unit === "rows" ? count(number) : fixed(number, 4);
  const limit = direction === null ? ", limit" : `, ${WANTED[direction]}`;
  const wanted = threshold === null ? "" : `${limit} ${say(threshold)}${direction === null ? "" : " wanted"}`;
  const between = low === null || high === null ? "" : `, interval ${say(low)} to ${say(high)}`;
  return `${words(name)} ${say(value)}${wanted}${between}${n === null ? "" : `, ${count(n)} rows`}`;
}
