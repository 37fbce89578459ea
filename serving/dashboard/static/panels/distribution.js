// One feature: its values in the reference and now, in the same bars.
import { draw } from "../charts.js";
import { el, facts, tableOf, tag } from "../dom.js";
import { empty } from "../panel.js";
import { count, fixed, moment } from "../format.js";
import { colour } from "../theme.js";

export function showDistribution(body, found, aside) {
  const { column, unit, description, bars, drift, compared } = found;
  aside.textContent = column;
  body.append(
    el(
      "p",
      { class: "line" },
      el("b", { text: column }),
      drift
        ? tag(
            drift.is_drifted || drift.is_missing_rate_drifted ? "drifted" : "not drifted",
            drift.is_drifted || drift.is_missing_rate_drifted ? "bad" : "good",
          )
        : tag("not compared", "unknown"),
    ),
  );
  body.append(el("p", { class: "soft", text: `${description} (${unit})` }));
  if (!compared) {
    body.append(
      empty("There is no tick of the version in production yet. The monitor makes one once there are predictions."),
    );
    return;
  }
  if (bars) {
    const place = el("div", { class: "chart column" });
    body.append(place, legend(compared), table(found));
    drawBars(place, found);
  } else {
    body.append(empty("No value is known on either side."));
  }
  body.append(
    facts([
      ["shift", drift ? `${fixed(drift.effect, 3)}, by ${drift.method}` : "not compared"],
      ["levels", drift && drift.levels.length > 0 ? drift.levels.map(moved).join(", ") : null],
      ["p-value", drift ? `${scientific(drift.p_value)}, drifted below ${scientific(drift.threshold)}` : null],
      [
        "missing",
        `${compared.current_missing_pct.toFixed(1)} % now, ${compared.reference_missing_pct.toFixed(1)} % in the reference`,
      ],
      [
        "window",
        `${moment(compared.window_start)} to ${moment(compared.window_end)}, version ${compared.model_version}`,
      ],
    ]),
  );
}

/** A level of a category may be any text that a client sends, and Plotly knows some HTML. */
const plain = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

/** How a level of a category has moved. */
function moved({ level, reference_pct: then, current_pct: now }) {
  if (!then) return `${level} is new (${now.toFixed(1)} %)`;
  return now ? `${level} ${then.toFixed(1)} % → ${now.toFixed(1)} %` : `${level} has vanished (${then.toFixed(1)} % before)`;
}

const scientific = (value) => (value >= 0.001 ? value.toFixed(3) : value.toExponential(1));

function legend({ n_current: n, n_reference: nReference }) {
  return el(
    "p",
    { class: "legend" },
    el("span", {}, el("span", { class: "swatch then" }), `reference, ${count(nReference)} rows`),
    el("span", {}, el("span", { class: "swatch present" }), `now, ${count(n)} rows`),
  );
}

function drawBars(place, { column, bars }) {
  const places = bars.labels.map((_, which) => which);
  const labels = bars.labels.map(plain);
  const side = (name, y, marker) => ({
    type: "bar",
    name,
    x: places,
    y,
    marker,
    text: labels,
    textposition: "none",
    hovertemplate: `%{text}: %{y:.1f} % ${name}<extra></extra>`,
  });
  draw(
    place,
    `Distribution of ${column}: reference and now, percent of rows per bar; the table below has the numbers`,
    [
      side("reference", bars.reference_pct, { color: colour("reference") }),
      side("now", bars.current_pct, {
        color: colour("realised-band"),
        line: { color: colour("realised"), width: 1.4 },
      }),
    ],
    {
      barmode: "overlay",
      bargap: bars.labels.length > 12 ? 0.04 : 0.25,
      hovermode: "closest",
      margin: { l: 40, r: 6, t: 8, b: 28 },
      xaxis: {
        tickvals: bars.ticks.map(({ place: x }) => x),
        ticktext: bars.ticks.map(({ text }) => plain(text)),
        range: [-0.6, places.length - 0.4],
        tickangle: 0,
        fixedrange: true,
      },
      yaxis: {
        rangemode: "tozero",
        ticksuffix: " %",
        nticks: 5,
        gridcolor: colour("line"),
        zeroline: false,
        fixedrange: true,
      },
    },
  );
}

function table({ column, bars }) {
  const columns = [{ title: "Values" }, { title: "Reference, %", isNumber: true }, { title: "Now, %", isNumber: true }];
  return tableOf(`Distribution of ${column}`, columns, () =>
    bars.labels.map((label, which) => [
      label,
      bars.reference_pct[which].toFixed(1),
      bars.current_pct[which].toFixed(1),
    ]),
  );
}
