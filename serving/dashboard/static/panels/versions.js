// Promotions and rollbacks, and buttons to go back.
import { post } from "../api.js";
import { ask } from "../dialogs.js";
import { el, tag, toast } from "../dom.js";
import { empty } from "../panel.js";
import { ago, fixed, moment, words } from "../format.js";

/** `data`: {promotions, versions, rights}; `changed()` is called after a rollback. */
export function showVersions(body, { promotions, versions, rights }, aside, changed) {
  aside.textContent = `${versions.length} registered`;
  if (!versions.length) {
    body.append(empty("No version is registered yet."));
    return;
  }
  const live = versions.find(({ stage }) => stage === "Production") ?? null;
  const staged = versions.filter(({ stage }) => stage === "Staging");
  const offered = new Set();
  body.append(
    el(
      "ol",
      { class: "timeline" },
      staged.map((version) =>
        el(
          "li",
          {},
          el(
            "p",
            { class: "line" },
            el("b", { text: `Version ${version.model_version}` }),
            tag("staged", "plain"),
            el("span", { class: "soft" }, "registered ", ago(version.registered_at)),
          ),
          metricsOf(version),
        ),
      ),
      promotions.map((promotion, place) => {
        const version = versions.find(({ model_version: number }) => number === promotion.model_version);
        const isLive = place === 0 && live?.model_version === promotion.model_version;
        const isOffered = !isLive && live && canComeBack(version, promotions) && !offered.has(version.model_version);
        offered.add(promotion.model_version);
        return entry(promotion, version, isLive, isOffered ? goBackButton(live, version, rights, changed) : null);
      }),
    ),
  );
  if (!rights.isAdmin) body.append(el("p", { class: "soft", text: `To roll back: ${rights.hint}` }));
}

function entry(
  { model_version: number, replaced_version: before, promoted_at: when, action, reason, actor },
  version,
  isLive,
  button,
) {
  const how =
    { promote: "passed its gates", force_promote: "forced", rollback: "restored by a rollback" }[action] ??
    words(action);
  return el(
    "li",
    { class: isLive ? "is-live" : null },
    el(
      "p",
      { class: "line" },
      el("b", { text: `Version ${number}` }),
      isLive ? tag("in production", "good") : null,
      el("span", { class: "soft" }, ago(when)),
    ),
    el("p", {
      class: "soft",
      text: `${how}${before === null ? "" : `, in place of version ${before}`}; ${actor}: ${reason}`,
    }),
    version ? metricsOf(version) : null,
    button ? el("p", { class: "act" }, button) : null,
  );
}

function metricsOf({ metrics, n_samples: n }) {
  return el("p", {
    class: "soft number",
    text: `AUC-ROC ${fixed(metrics.auc_roc)}, F1 ${fixed(metrics.f1)} in evaluation; ${n.toLocaleString("en")} rows`,
  });
}

/** Whether a rollback to this version is possible: it was in production and was not itself rolled back. */
export function canComeBack(version, promotions) {
  if (version?.stage !== "Archived") return false;
  const ended = promotions.find(({ replaced_version: replaced }) => replaced === version.model_version);
  return ended?.action !== "rollback";
}

/** A button that rolls back from the version in production to an earlier one, after a dialog that names both. */
export function goBackButton(live, target, rights, changed) {
  const title = `Roll back to version ${target.model_version}`;
  return el("button", {
    type: "button",
    disabled: !rights.isAdmin,
    title: rights.isAdmin ? null : rights.hint,
    text: title,
    on: { click: () => goBack(live, target, changed) },
  });
}

async function goBack(live, target, changed) {
  const [from, to] = [live.model_version, target.model_version];
  let answer = null;
  const isDone = await ask({
    title: `Roll back from version ${from} to version ${to}?`,
    lines: [
      `Version ${from}, in production since ${moment(live.promoted_at)}, will be archived.`,
      `Version ${to}${target.promoted_at ? `, last live on ${moment(target.promoted_at)},` : ""} will score from now on. No request is dropped.`,
    ],
    field: {
      label: "Reason",
      hint: "Recorded in the decision, with the name of your key.",
      isRequired: true,
      maxLength: 1000,
    },
    confirm: `Roll back to version ${to}`,
    isDangerous: true,
    act: async (reason) => {
      answer = await post("/rollbacks", { reason, model_version: to, from_version: from });
    },
  });
  if (!isDone) return;
  toast(`Version ${answer.model_version} is in production again.`);
  changed();
}
