// Charts over time and of one column, by Plotly; and the small curves of the cards, which need no library.
import { colour } from "./theme.js";

let library = null;

/** Plotly, fetched when the first chart is drawn: state and figures are on the screen by then. */
function plotly() {
  library ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = document.querySelector('meta[name="plotly"]').content;
    script.addEventListener("load", () => resolve(globalThis.Plotly));
    script.addEventListener("error", () => {
      library = null;
      reject(new Error("Plotly did not load; the tables below the charts have the same data"));
    });
    document.head.append(script);
  });
  return library;
}

/** Draws into the place. `label` describes the chart for screen readers. */
export async function draw(place, label, data, layout) {
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", label);
  try {
    const { newPlot } = await plotly();
    if (place.isConnected)
      await newPlot(place, data, { ...common(), ...layout }, { responsive: true, displayModeBar: false });
  } catch (error) {
    place.textContent = error.message;
  }
}

function common() {
  const axis = { gridcolor: colour("line"), linecolor: colour("line"), zeroline: false, fixedrange: true };
  return {
    margin: { l: 46, r: 10, t: 10, b: 32 },
    font: { family: "system-ui, sans-serif", size: 11, color: colour("soft") },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    showlegend: false,
    hovermode: "x unified",
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("ink") }, align: "left" },
    xaxis: axis,
    yaxis: axis,
  };
}

/** Layout of a chart over time, with a line wherever another version went live, and a band where the relation changed. */
export function overTime(history, { suffix = "", level = null, digits = ".3~f" } = {}) {
  const { xaxis, yaxis } = common();
  const soft = colour("soft");
  const events = history.promotions.filter(({ promoted_at: when }) => new Date(when) >= new Date(firstMoment(history)));
  const lines = events.map(({ promoted_at: when, action }) => ({
    type: "line",
    x0: when,
    x1: when,
    yref: "paper",
    y0: 0,
    y1: 1,
    line: { color: soft, width: 1.5, dash: action === "rollback" ? "dot" : "dash" },
  }));
  const changes = history.changes.filter(({ high }) => new Date(high) >= new Date(firstMoment(history)));
  for (const { low, high } of changes) {
    lines.push({
      type: "rect",
      layer: "below",
      x0: low,
      x1: high,
      yref: "paper",
      y0: 0,
      y1: 1,
      fillcolor: colour("warning"),
      opacity: 0.25,
      line: { color: colour("warning"), width: 1 },
    });
  }
  if (level !== null) {
    lines.push({
      type: "line",
      xref: "paper",
      x0: 0,
      x1: 1,
      y0: level,
      y1: level,
      line: { color: colour("ink"), width: 1, dash: "dot" },
    });
  }
  return {
    shapes: lines,
    annotations: [
      ...events.map(({ promoted_at: when, model_version: version, action }) =>
        above(when, action === "rollback" ? `↩ v${version}` : `v${version}`),
      ),
      ...changes.map(({ at: when }) => above(when, "change")),
    ],
    margin: { l: 46, r: 10, t: 18, b: 32 },
    xaxis: {
      ...xaxis,
      type: "date",
      nticks: 5,
      range: [firstMoment(history), history.until],
      hoverformat: "%d %b %H:%M",
    },
    yaxis: { ...yaxis, ticksuffix: suffix, nticks: 5, hoverformat: digits },
  };
}

/** A word above a chart. */
const above = (when, text) => ({
  x: when,
  yref: "paper",
  y: 1,
  yanchor: "bottom",
  showarrow: false,
  font: { size: 10, color: colour("soft") },
  text,
});

const firstMoment = (history) => history.first_evaluation_at ?? history.since;

/** A line, and the area between the ends of its intervals where they are known. `points`: {at, value, low, high}. */
export function lineWithBand(name, points, lineColour, bandColour) {
  const known = points.filter(({ value }) => value !== null);
  const banded = known.filter(({ low }) => low !== null && low !== undefined);
  const back = [...banded].reverse();
  const band = {
    type: "scatter",
    mode: "lines",
    hoverinfo: "skip",
    fill: "toself",
    fillcolor: colour(bandColour ?? lineColour),
    line: { width: 0 },
    x: [...banded, ...back].map(({ at }) => at),
    y: [...banded.map(({ high }) => high), ...back.map(({ low }) => low)],
  };
  const line = {
    type: "scatter",
    mode: known.length < 3 ? "lines+markers" : "lines",
    name,
    line: { color: colour(lineColour), width: 1.8 },
    x: known.map(({ at }) => at),
    y: known.map(({ value }) => value),
  };
  return banded.length > 1 ? [band, line] : [line];
}

/** The steps of each version: a line from one version's value to another's would show nothing real. */
export function byVersion(steps) {
  const runs = [];
  for (const step of steps) {
    if (runs.at(-1)?.[0].model_version === step.model_version) runs.at(-1).push(step);
    else runs.push([step]);
  }
  return runs;
}

/** An empty canvas of the screen's own pixels, to be drawn on in those of the page. */
export function drawingOn(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const ratio = devicePixelRatio || 1;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  return { context, width, height };
}

/** The last values as a curve; null leaves a gap. */
export function sparkline(canvas, values, colourName) {
  const { context, width, height } = drawingOn(canvas);
  const top = Math.max(...values.filter((value) => value !== null), 1e-9);
  context.strokeStyle = colour(colourName);
  context.lineWidth = 1.5;
  context.lineJoin = "round";
  context.beginPath();
  let isDown = false;
  values.forEach((value, place) => {
    if (value === null) {
      isDown = false;
      return;
    }
    const x = (place / Math.max(1, values.length - 1)) * width;
    const y = height - 2 - (value / top) * (height - 4);
    if (isDown) context.lineTo(x, y);
    else context.moveTo(x, y);
    isDown = true;
  });
  context.stroke();
}
