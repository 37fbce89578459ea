// The reports on this host. If the API asks for keys, their links contain a ticket that is valid for ten minutes: a browser sends no key with a link.
import { el } from "../dom.js";
import { empty } from "../panel.js";
import { ago } from "../format.js";

const MAX_SHOWN = 6;

export function showReports(body, { reports, ticket }, aside) {
  aside.textContent = reports.length > MAX_SHOWN ? `the newest ${MAX_SHOWN} of ${reports.length}` : "";
  if (!reports.length) {
    body.append(
      empty(
        "There is no report yet. One is written when the state changes, hourly during drift, and by `selfheal report`.",
      ),
    );
    return;
  }
  body.append(
    el(
      "ul",
      { class: "rows" },
      reports
        .slice(0, MAX_SHOWN)
        .map((report) =>
          el(
            "li",
            { class: "line" },
            el("b", { text: report.name }),
            el("span", { class: "soft" }, ago(report.written_at)),
            link(report.overview, "Overview", ticket),
            link(report.evidently, "Evidently's report", ticket),
          ),
        ),
    ),
  );
}

function link(path, text, ticket) {
  if (path === null) return null;
  const href = ticket === null ? path : `/monitoring/tickets/${ticket}/${path.split("/").at(-1)}`;
  return el("a", { href, target: "_blank", rel: "noopener", text });
}
