// The map of the page: what is requested when, and which panel shows it. Each module beside this one has one concern.
import { ApiError, forgetKey, get, key, storeKey } from "./api.js";
import { ask } from "./dialogs.js";
import { byId, toast } from "./dom.js";
import { updateRelativeTimes } from "./format.js";
import { Live } from "./live.js";
import { Panel } from "./panel.js";
import { setUpTheme } from "./theme.js";
import { showAlerts } from "./panels/alerts.js";
import { loseCards, showFigures, showServing, Traffic } from "./panels/cards.js";
import { showDecisions } from "./panels/decisions.js";
import { showDistribution } from "./panels/distribution.js";
import { showDrift } from "./panels/drift.js";
import { showProblem, showState } from "./panels/headline.js";
import { showLoop } from "./panels/loop.js";
import { showProxies } from "./panels/proxies.js";
import { showQuality } from "./panels/quality.js";
import { showReports } from "./panels/reports.js";
import { canComeBack, goBackButton, showVersions } from "./panels/versions.js";

const STATE_EVERY_MS = 15_000;
const HISTORY_EVERY_MS = 120_000;
const POINTS = 120;
const POINTS_OF_AN_HOUR = 360;
const HOURS = [1, 24, 168, 720];
const N_DECISIONS = 12;

/** The latest responses; null if unknown. */
const known = { overview: null, snapshot: null, decisions: null, promotions: null, versions: null };
const asksForKeys = document.querySelector('meta[name="asks-for-keys"]').content === "true";
const traffic = new Traffic();
const live = new Live();
let hours = null; // null: as long as the history is, at first
let column = null; // whose distribution is shown
let nDecisions = N_DECISIONS;
let shownServing = null; // the data of the first card, as text
let isAsking = false;
let isShutOut = false; // no key, or not the right one: nothing is requested until there is another
let isLost = false; // whether the last request for the state failed

const panels = {
  alerts: new Panel("alerts", (body, data, aside) => showAlerts(body, data, aside, refreshState), refreshState),
  drift: new Panel("drift", (body, history, aside) => showDrift(body, history, aside, selectColumn), refreshHistory),
  distribution: new Panel("distribution", showDistribution, () => selectColumn(column)),
  quality: new Panel("quality", showQuality, refreshHistory),
  proxies: new Panel("proxies", showProxies, refreshHistory),
  decisions: new Panel(
    "decisions",
    (body, data, aside) => showDecisions(body, { ...data, more: data.next ? showOlder : null }, aside),
    refreshDecisions,
  ),
  versions: new Panel("versions", (body, data, aside) => showVersions(body, data, aside, refreshAll), refreshVersions),
  reports: new Panel("reports", showReports, refreshReports),
};

// State, alerts, versions

async function refreshState() {
  const wasLost = isLost;
  try {
    if (asksForKeys && !key()) throw new ApiError("unauthorized", "No key was given.", 401);
    known.overview = await get("/overview");
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    isLost = true;
    isShutOut = error.status === 401 || error.status === 403;
    known.overview = null;
    if (isShutOut) Object.assign(known, { snapshot: null, decisions: null, promotions: null, versions: null });
    loseCards(isShutOut);
    shownServing = null;
    if (isShutOut) {
      live.close();
      traffic.lose();
      showConnection("none");
    }
    showLoop(known);
    for (const panel of Object.values(panels)) panel.lose(isShutOut);
    await showProblem(error);
    byId("key").hidden = !isShutOut;
    byId("key").textContent = "Enter a key";
    if (isShutOut) askForKey(key() ? error.message : null);
    return false;
  }
  isLost = isShutOut = false;
  if (wasLost) setTimeout(refreshAll); // the other panels have to be loaded again, too
  showState(known.overview);
  showFigures(known.overview);
  refreshServing();
  showLoop(known);
  byId("key").hidden = !known.overview.asks_for_keys;
  byId("key").textContent = `Remove key ${known.overview.caller.name}`;
  const alerts = get("/monitoring/alerts", { limit: 40 });
  panels.alerts.follow(alerts.then((data) => ({ ...data, rights: rights() })));
  return true;
}

function rights() {
  const { name, scopes } = known.overview?.caller ?? { name: "?", scopes: [] };
  return {
    isAdmin: scopes.includes("admin"),
    hint: `a key with the scope admin is needed; ${name} has ${scopes.join(", ")}.`,
  };
}

async function refreshVersions() {
  const both = Promise.all([get("/model/promotions", { limit: 30 }), get("/model/versions", { limit: 100 })]);
  const loaded = both.then(([{ promotions }, { versions }]) => {
    Object.assign(known, { promotions, versions });
    showLoop(known);
    if (known.overview) refreshServing();
    return { promotions, versions, rights: rights() };
  });
  await panels.versions.follow(loaded);
}

/** Only if something has changed: a button that is rebuilt loses the focus. */
function refreshServing() {
  const { model, probation } = known.overview;
  const data = JSON.stringify([model, probation, known.versions, known.promotions, rights()]);
  if (data !== shownServing) showServing(known.overview, rollbackFromCard);
  shownServing = data;
}

function rollbackFromCard({ model }) {
  const before = known.versions?.find(({ model_version: number }) => number === model.previous_version);
  return before && canComeBack(before, known.promotions) ? goBackButton(model, before, rights(), refreshAll) : null;
}

// History

async function fetchHistory() {
  if (hours !== null) return historyOf(hours);
  const longest = await historyOf(HOURS.at(-1));
  const since = longest.first_evaluation_at ? (Date.now() - new Date(longest.first_evaluation_at).getTime()) / 3_600_000 : 0;
  if (!longest.steps.length) return longest; // nothing yet: the first ticks decide
  hours = HOURS.find((choice) => since <= 0.9 * choice) ?? HOURS.at(-1);
  markRange();
  return hours === HOURS.at(-1) ? longest : historyOf(hours);
}

const historyOf = (period) =>
  get("/monitoring/history", { hours: period, points: period === 1 ? POINTS_OF_AN_HOUR : POINTS });

async function refreshHistory() {
  const history = fetchHistory();
  const withEvaluation = history.then((loaded) => ({
    history: loaded,
    evaluation: known.overview?.model?.metrics ?? null,
  }));
  const withDeclarations = Promise.all([history, get("/monitoring/declarations")]).then(
    ([loaded, { declarations }]) => ({ ...loaded, declarations }),
  );
  await Promise.all([
    panels.drift.follow(withDeclarations),
    panels.quality.follow(withEvaluation),
    panels.proxies.follow(withEvaluation),
  ]);
  const isEmpty = await history.then(
    ({ steps }) => !steps.length,
    () => false,
  );
  if (isEmpty && column === null) selectColumn("probability");
}

function markRange() {
  for (const input of byId("range").querySelectorAll("input")) input.checked = Number(input.value) === hours;
}

function selectColumn(name) {
  column = name;
  if (name !== null) panels.distribution.follow(get(`/monitoring/drift/${encodeURIComponent(name)}`));
}

// Decisions and reports

async function refreshDecisions() {
  const page = get("/decisions", { limit: nDecisions }).then(({ decisions, next_before: next }) => {
    known.decisions = decisions;
    showLoop(known);
    return { decisions, next };
  });
  await panels.decisions.follow(page);
}

function showOlder() {
  nDecisions = Math.min(500, nDecisions + 2 * N_DECISIONS);
  refreshDecisions();
}

async function refreshReports() {
  await panels.reports.follow(get("/monitoring/reports"));
}

// Events

async function refreshAll() {
  if (!(await refreshState())) return;
  await Promise.all([refreshVersions(), refreshDecisions(), refreshHistory(), refreshReports()]);
}

const REFRESHES = {
  verdict: [refreshState, refreshHistory, refreshReports],
  promotion: [refreshState, refreshVersions, refreshHistory],
  decision: [refreshDecisions, refreshHistory],
  alert_opened: [refreshState],
  alert_resolved: [refreshState],
};

live.addEventListener("message", ({ detail }) => {
  if (detail.type !== "snapshot") {
    for (const refresh of REFRESHES[detail.type] ?? []) refresh();
    return;
  }
  known.snapshot = detail;
  traffic.show(detail);
  showLoop(known);
});

live.addEventListener("status", ({ detail }) => {
  const before = byId("connection").dataset.state;
  if (before === detail) return;
  showConnection(detail);
  if (detail === "lost") {
    known.snapshot = null;
    traffic.lose();
    refreshState();
  } else if (before === "lost") {
    refreshAll();
  }
});

function showConnection(state) {
  const place = byId("connection");
  place.dataset.state = state;
  place.querySelector(".text").textContent = {
    live: "live",
    lost: "connection lost",
    connecting: "connecting",
    none: "not connected",
  }[state];
}

async function askForKey(problem) {
  if (isAsking) return;
  isAsking = true;
  await ask({
    title: "API key",
    lines: [
      problem,
      "A key with the scope read shows everything; admin may also acknowledge and roll back. The key stays in this tab until it is closed.",
    ].filter(Boolean),
    field: { label: "Key", type: "password", isRequired: true, maxLength: 256 },
    confirm: "Use this key",
    act: async (text) => {
      storeKey(text);
      try {
        await get("/overview");
      } catch (error) {
        if (error.status === 401 || error.status === 403) {
          forgetKey();
          throw error;
        }
      }
    },
  });
  isAsking = false;
  if (key()) begin();
}

byId("key").addEventListener("click", async () => {
  if (known.overview) toast("The key was removed from this tab.");
  forgetKey();
  await refreshState();
});

byId("range").addEventListener("change", ({ target }) => {
  hours = Number(target.value);
  refreshHistory();
});

setUpTheme(() => {
  traffic.redraw();
  for (const panel of Object.values(panels)) panel.redraw();
});

async function begin() {
  isLost = false; // everything is requested now
  await refreshAll();
  if (known.overview) live.connect();
}

updateRelativeTimes();
begin();
setInterval(() => isShutOut || refreshState(), STATE_EVERY_MS);
setInterval(() => known.overview && Promise.all([refreshHistory(), refreshReports()]), HISTORY_EVERY_MS);
