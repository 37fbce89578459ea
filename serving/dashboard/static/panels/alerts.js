// Alerts: the open ones, who has acknowledged them, and the resolved ones.
import { post } from "../api.js";
import { ask } from "../dialogs.js";
import { el, tag, toast } from "../dom.js";
import { empty } from "../panel.js";
import { ago, SEVERITIES, words } from "../format.js";

const MAX_RESOLVED = 8;

/** `rights`: {isAdmin, hint}; `changed()` is called after an acknowledgement. */
export function showAlerts(body, { alerts, rights }, aside, changed) {
  const open = alerts.filter(({ resolved_at: end }) => end === null);
  const resolved = alerts.filter(({ resolved_at: end }) => end !== null);
  aside.textContent = open.length ? `${open.length} open` : "";
  if (open.length)
    body.append(
      el(
        "ul",
        { class: "rows" },
        open.map((alert) => row(alert, rights, changed)),
      ),
    );
  else body.append(empty("No alert is open."));
  if (open.some(({ acknowledged_at: seen }) => seen === null) && !rights.isAdmin)
    body.append(el("p", { class: "soft more", text: `To acknowledge: ${rights.hint}` }));
  if (!resolved.length) return;
  const shown = resolved.slice(0, MAX_RESOLVED);
  body.append(
    el(
      "details",
      { class: "table" },
      el("summary", { text: `Resolved: the latest ${shown.length}` }),
      el(
        "ul",
        { class: "rows" },
        shown.map((alert) => row(alert, rights, changed)),
      ),
    ),
  );
}

function row(alert, rights, changed) {
  const { severity, kind, message, created_at: since, resolved_at: end, model_version: version } = alert;
  const about = version === null ? "" : `, version ${version}`;
  const isUnseen = end === null && alert.acknowledged_at === null;
  return el(
    "li",
    {},
    el(
      "p",
      { class: "line" },
      tag(severity, end === null ? SEVERITIES[severity] : "plain"),
      el("b", { text: `${words(kind)}${about}` }),
      el("span", { class: "soft" }, "since ", ago(since), ...(end ? [", resolved ", ago(end)] : [])),
      isUnseen
        ? el("button", {
            class: "push",
            type: "button",
            disabled: !rights.isAdmin,
            "aria-label": `Acknowledge ${words(kind)}${about}`,
            text: "Acknowledge",
            on: { click: () => acknowledge(alert, changed) },
          })
        : null,
    ),
    el("p", { class: "message", text: message }),
    alert.acknowledged_at
      ? el(
          "p",
          { class: "soft" },
          `Acknowledged by ${alert.acknowledged_by}, `,
          ago(alert.acknowledged_at),
          alert.acknowledged_note ? `: ${alert.acknowledged_note}` : "",
        )
      : null,
  );
}

async function acknowledge({ alert_id: id, kind, message }, changed) {
  const isDone = await ask({
    title: `Acknowledge ${words(kind)}`,
    lines: [
      message,
      "It stays open until its cause is gone; no further notification is sent unless it becomes more severe.",
    ],
    field: { label: "Note", hint: "Optional. For those who read it later.", maxLength: 1000 },
    confirm: "Acknowledge",
    act: (note) => post(`/monitoring/alerts/${id}/acknowledge`, note ? { note } : {}),
  });
  if (!isDone) return;
  toast(`Acknowledged: ${words(kind)}.`);
  changed();
}
