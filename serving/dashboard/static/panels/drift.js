// The heat map: one row per feature, one cell per step of time. Rows are options of a list: up and down choose one, left and right read out cells.
import { el, tableOf } from "../dom.js";
import { empty } from "../panel.js";
import { drawingOn } from "../charts.js";
import { colour } from "../theme.js";
import { fixed, moment, percent, words } from "../format.js";
import { declared } from "./declarations.js";

const MIN_SLOTS = 24; // the few ticks of a new platform do not fill the width
const FULL_EFFECT = 0.6; // shifts from this size on have the full colour
const NO_FILE_EFFECT = 0.3; // colour of a drifted cell whose size is unknown on this host

let selected = null; // stays when the data changes

/** `select(column)` is called when another feature is chosen, and once at first. */
export function showDrift(body, history, aside, select) {
  const { steps, drift } = history;
  aside.textContent = steps.length
    ? `${steps.length} ${steps.length === 1 ? "step" : "steps"} of ${stepWords(history.step_seconds)} with a tick`
    : "";
  if (!steps.length) {
    body.append(
      empty(
        "There is no monitoring tick in this period. Ticks need new predictions: send some, or choose a longer period.",
      ),
      declared(history.declarations),
    );
    return;
  }
  const scale = slotsOf(history);
  const readout = el("p", {
    class: "readout soft",
    "aria-live": "polite",
    text: "Choose a feature; left and right move through time.",
  });
  const rows = drift.map((column) => rowOf(column, history));
  const list = el(
    "div",
    { class: "heat", role: "listbox", "aria-label": "Features, by drift over time" },
    rows.map(({ element }) => element),
  );
  const draw = () => rows.forEach((row) => paint(row.canvas, row.column, history, scale));
  wire(list, rows, history, scale, readout, select);
  body.append(list, axis(history, scale), readout, legend(), declared(history.declarations), table(history));
  draw();
  new ResizeObserver(draw).observe(list);
  choose(
    rows,
    Math.max(
      0,
      drift.findIndex(({ column }) => column === (selected ?? strongest(drift))),
    ),
    select,
    false,
  );
}

const stepWords = (seconds) =>
  seconds < 60
    ? `${seconds} s`
    : seconds < 3600
      ? `${seconds / 60} min`
      : seconds < 86400
        ? `${seconds / 3600} h`
        : `${seconds / 86400} d`;

/** The feature with the largest shift in its latest comparison, or the first one. */
function strongest(drift) {
  const last = (values) => values.findLast((value) => value !== null) ?? 0;
  const latest = ({ effect, drifted_share: share }) => (last(share) > 0) + last(effect);
  return drift.reduce((best, one) => (latest(one) > latest(best) ? one : best)).column;
}

/** The place of each step: periods without predictions show as gaps. */
function slotsOf({ steps, step_seconds: seconds }) {
  const first = new Date(steps[0].start).getTime();
  const places = steps.map(({ start }) => Math.round((new Date(start).getTime() - first) / 1000 / seconds));
  return { first, seconds, places, n: Math.max(MIN_SLOTS, places.at(-1) + 1) };
}

function rowOf(column, { steps }) {
  const share = column.drifted_share.at(-1);
  const effect = column.effect.at(-1);
  const isDrifted = (share ?? 0) > 0;
  const canvas = el("canvas", { "aria-hidden": "true" });
  const now = isDrifted ? "drifted" : share === null ? "unknown" : "not drifted";
  const element = el(
    "div",
    { class: "row", role: "option", tabindex: "-1", "aria-selected": "false", title: column.column },
    el("span", { class: "feature", text: column.column }),
    canvas,
    el(
      "span",
      { class: `now${isDrifted ? " is-drifted" : ""}` },
      `${isDrifted ? "▲ " : ""}${effect === null || effect === undefined ? "–" : fixed(effect, 2)}`,
      el("span", { class: "unseen", text: ` ${now}` }),
    ),
  );
  return { element, canvas, column, cursor: steps.length - 1 };
}

function paint(canvas, { drifted_share: shares, effect: effects }, { promotions }, { first, seconds, places, n }) {
  const { context, width, height } = drawingOn(canvas);
  const cell = width / n;
  const hues = {
    from: channels(colour("heat-0")),
    to: channels(colour("heat-1")),
    ink: colour("ink"),
    line: colour("line"),
  };
  places.forEach((place, step) => {
    const x = place * cell;
    const w = Math.max(1, cell - (cell > 5 ? 1 : 0));
    const share = shares[step];
    if (share === null) {
      hatch(context, x, w, height, hues.line);
      return;
    }
    const effect = effects[step] ?? (share > 0 ? NO_FILE_EFFECT : 0);
    context.fillStyle = mix(hues.from, hues.to, Math.min(1, effect / FULL_EFFECT));
    context.fillRect(x, 0, w, height);
    if (share > 0) {
      context.fillStyle = hues.ink;
      context.fillRect(x, 0, w, 3);
    }
  });
  context.strokeStyle = hues.ink;
  context.setLineDash([2, 2]);
  for (const { promoted_at: when } of promotions) {
    const x = ((new Date(when).getTime() - first) / 1000 / seconds) * cell;
    if (x < 0) continue;
    context.beginPath();
    context.moveTo(x, 0);
    context.lineTo(x, height);
    context.stroke();
  }
}

function hatch(context, x, width, height, lineColour) {
  context.strokeStyle = lineColour;
  context.lineWidth = 1;
  context.beginPath();
  for (let y = 3; y < height + width; y += 5) {
    context.moveTo(x, Math.min(height, y));
    context.lineTo(Math.min(x + width, x + y), Math.max(0, y - width));
  }
  context.stroke();
}

const channels = (rgb) =>
  rgb
    .match(/[\d.]+/g)
    .slice(0, 3)
    .map(Number);
const mix = (from, to, share) =>
  `rgb(${from.map((value, place) => Math.round(value + share * (to[place] - value))).join(" ")})`;

function wire(list, rows, history, scale, readout, select) {
  const rowAt = (target) => rows.findIndex(({ element }) => element.contains(target));
  list.addEventListener("click", ({ target }) => {
    const which = rowAt(target);
    if (which >= 0) choose(rows, which, select, true);
  });
  list.addEventListener("mousemove", ({ target, clientX }) => {
    const row = rows[rowAt(target)];
    if (!row || target !== row.canvas) return;
    const box = row.canvas.getBoundingClientRect();
    const slot = Math.floor(((clientX - box.left) / box.width) * scale.n);
    const step = scale.places.indexOf(slot);
    readout.textContent =
      step < 0 ? `${row.column.column}: no tick at that time.` : cellWords(row.column, history, step);
  });
  list.addEventListener("keydown", (event) => {
    const which = rowAt(document.activeElement);
    if (which < 0) return;
    const last = rows.length - 1;
    const rowFor = { ArrowUp: which - 1, ArrowDown: which + 1, Home: 0, End: last }[event.key];
    if (rowFor !== undefined) {
      choose(rows, Math.min(last, Math.max(0, rowFor)), select, true);
    } else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      const row = rows[which];
      row.cursor = Math.min(history.steps.length - 1, Math.max(0, row.cursor + (event.key === "ArrowRight" ? 1 : -1)));
      readout.textContent = cellWords(row.column, history, row.cursor);
    } else {
      return;
    }
    event.preventDefault();
  });
}

function choose(rows, which, select, isFocused) {
  rows.forEach(({ element }, place) => {
    element.setAttribute("aria-selected", String(place === which));
    element.tabIndex = place === which ? 0 : -1;
  });
  if (isFocused) rows[which].element.focus();
  const name = rows[which].column.column;
  const isNew = name !== selected;
  selected = name;
  if (isNew || !isFocused) select(name);
}

function cellWords({ column, drifted_share: shares, effect: effects }, { steps }, which) {
  const { start, n_ticks: n, verdict, model_version: version } = steps[which];
  const share = shares[which];
  const drift =
    share === null
      ? "not compared"
      : share > 0
        ? `drifted in ${percent(share, 0)} of ${n} ${n === 1 ? "tick" : "ticks"}`
        : `not drifted in ${n} ${n === 1 ? "tick" : "ticks"}`;
  const size = effects[which] === null ? "" : `, shift ${fixed(effects[which], 2)}`;
  return `${column}, ${moment(start)}: ${drift}${size}. Verdict: ${words(verdict)}, version ${version}.`;
}

function axis(history, { first, seconds, n }) {
  const end = first + n * seconds * 1000;
  const moments = [first, (first + end) / 2, end].map((ms) => el("span", { text: moment(new Date(ms).toISOString()) }));
  return el(
    "div",
    { class: "heat" },
    el(
      "div",
      { class: "axis", "aria-hidden": "true" },
      el("span"),
      el("div", {}, moments),
      el("span", { text: "shift now" }),
    ),
  );
}

function legend() {
  const entry = (swatch, text) => el("span", {}, el("span", { class: `swatch ${swatch}` }), text);
  return el(
    "p",
    { class: "legend" },
    entry("ramp", `size of the shift, 0 to ${FULL_EFFECT} and more`),
    entry("drifted", "drifted: significant and material"),
    entry("uncompared", "too few rows to compare"),
    entry("event", "another version went live"),
  );
}

function table({ drift }) {
  const columns = [
    { title: "Feature" },
    { title: "Now" },
    { title: "Shift now", isNumber: true },
    { title: "Largest shift", isNumber: true },
    { title: "Steps drifted", isNumber: true },
  ];
  return tableOf("Drift by feature", columns, () =>
    drift.map(({ column, drifted_share: shares, effect }) => {
      const known = shares.filter((share) => share !== null);
      const sizes = effect.filter((size) => size !== null);
      const now = shares.at(-1);
      return [
        column,
        now === null ? "not compared" : now > 0 ? "drifted" : "not drifted",
        fixed(effect.at(-1), 2),
        fixed(sizes.length ? Math.max(...sizes) : null, 2),
        `${known.filter((share) => share > 0).length} of ${known.length}`,
      ];
    }),
  );
}
