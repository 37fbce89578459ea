"""Make `data_of_<commit>.tar.xz`: what a platform of an older commit leaves behind, for the tests of this folder.

Run it in a checkout of that commit with that commit's own environment, in a folder whose path may be published:
Dagster and MLflow record it, and MLflow the URL of the remote too.

    git clone REPOSITORY /tmp/selfheal-8598769
    cd /tmp/selfheal-8598769
    git checkout 8598769
    git remote remove origin
    make test-quick
    .venv/bin/python NEWER_CHECKOUT/tests/compatibility/make_fixture.py

On an idle machine it takes a quarter of an hour, most of it waiting (`registry_sensor` reports nothing in the five
minutes after a promotion), and writes the archive beside itself. It starts the platform as a person does, by
`selfheal up`, and uses nothing of it but its public interfaces (command line, REST, MLflow's REST, Dagster's GraphQL):
so it can be run in a checkout of any commit, and no import binds it to one.

The platform of the shipped use case lives below `ROOT`, since MLflow records absolute paths; all rows are synthetic.
It bootstraps version 1, sees calm traffic, a broken feed and a rate shock, heals itself with version 2, and has a
verdict that rejects, a rollback that is refused and one that is not, a forced promotion, a probation, corrected
labels, requested retrainings, moved aliases, and alerts of nine or more kinds, open, acknowledged and resolved, with
messages delivered.

The archive holds:

- `fixture.json`: the commit, and `ROOT`, where the archive has to be restored.
- `dumps/`: the databases `selfheal`, `mlflow` and `dagster`, in `pg_dump`'s custom format, uncompressed (xz does that
  better).
- `data/`: the data folder as docs/runbook.md backs it up, without HTML pages (they can be rendered again).
- `answers.json`: what the older API answered about its past (see `REMEMBERED`), and what `selfheal history` and
  `selfheal verify` printed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

ROOT = Path("/tmp/selfheal-fixture")  # the same on every machine
DATA_DIR = ROOT / "data"
DATABASES = ("selfheal", "mlflow", "dagster")

LEFT_OUT = ("./postgres", "./.postgres.users", "./cache", "./logs", "./run")
"""Of the data folder, as in the runbook's backup."""

LEFT_OUT_SUFFIXES = (".html", ".js")

PORTS = ("API_PORT", "DAGSTER_PORT", "CODE_SERVER_PORT", "MLFLOW_PORT")
SETTINGS = {
    "DATA_DIR": str(DATA_DIR),
    "LOGNAME": "maker",  # whose name decisions and MLflow's runs have
    "SYNTHETIC_ROWS": "3000",  # what a version learns from is in the archive several times
    "MONITORING_INTERVAL": "10",
    "PROMOTION_COOLDOWN_DAYS": "0",
    "MIN_PROBATION_LABELS": "60",
    "TRAFFIC_SILENCE_HOURS": "0.1",  # its least
    "JOURNAL_MAX_MB": "0.2",  # some files that are closed and packed
}
TRAFFIC = {"SYNTHETIC_ROWS": "20000"}
"""Rows that `selfheal simulate` sends are drawn apart from those of the bootstrap."""

REMEMBERED = (
    "/decisions?limit=500",
    "/model/versions?limit=500",
    "/model/promotions?limit=500",
    "/model/info",
    "/monitoring/alerts?limit=500",
    "/monitoring/stats",
)
"""The reads whose answers are kept. Each decision of the first is kept in full as well."""

WAIT_SECONDS = 900.0
STOP_SECONDS = 60.0

log = logging.getLogger("make_fixture")


# Tools


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """Polls until the condition holds, and returns what it returned."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            found = condition()
            if found:
                log.info("seen: %s", what)
                return found
        time.sleep(1.0)
    raise SystemExit(f"not within {WAIT_SECONDS:.0f} s: {what}; the platform's log is {ROOT / 'up.log'}")


def free_ports(n: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(n)]
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def receiver() -> Iterator[str]:
    """A webhook that takes every message; yields its address for NOTIFY_URLS."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"json://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@dataclass
class Platform:
    """The platform of the checkout in the working directory, used from outside."""

    environment: dict[str, str]
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.environment['API_PORT']}", timeout=60.0)

    def cli(self, *arguments: str, **changes: str) -> str:
        """What a command of `selfheal` prints."""
        done = subprocess.run(
            [sys.executable, "-m", "selfheal", *arguments],
            env=self.environment | changes,
            cwd=ROOT,  # no stray .env
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(f"selfheal {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    @contextlib.contextmanager
    def running(self, *command: str) -> Iterator[None]:
        """Runs one of the platform's commands until the context ends."""
        with (ROOT / "up.log").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                env=self.environment,
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                yield
            finally:
                process.send_signal(signal.SIGINT)
                process.wait(STOP_SECONDS)

    def get(self, path: str) -> Any:
        return self.client.get(path).raise_for_status().json()

    def post(self, path: str, body: Any, status: int = 200) -> Any:
        answer = self.client.post(path, json=body)
        if answer.status_code != status:
            raise SystemExit(f"POST {path}: {answer.status_code} instead of {status}: {answer.text}")
        return answer.json()

    def simulate(self, scenario: str, rows: int, start: int, label_delay: int = 2) -> None:
        """Sends rows of the synthetic data set, and their labels."""
        log.info("%d rows, scenario %s", rows, scenario)
        options = ("--rows", str(rows), "--start", str(start), "--rate", "100", "--label-delay", str(label_delay))
        self.cli("simulate", "--scenario", scenario, *options, **TRAFFIC)

    def version(self) -> int | None:
        answering: int | None = self.client.get("/health").json()["model_version"]  # 503 while there is none
        return answering

    def alerts(self, kind: str, *, is_open: bool) -> list[dict[str, Any]]:
        found = self.get("/monitoring/alerts?limit=500")["alerts"]
        return [alert for alert in found if alert["kind"] == kind and (alert["resolved_at"] is None) == is_open]

    def wait_for_alert(self, kind: str, *, is_open: bool = True) -> dict[str, Any]:
        state = "open" if is_open else "resolved"
        alert: dict[str, Any] = wait_for(lambda: self.alerts(kind, is_open=is_open), f"alert {kind} is {state}")[0]
        return alert

    def wait_for_quiet(self) -> None:
        """Until a tick has seen all predictions and their labels."""

        def is_quiet() -> bool:
            is_copied = self.get("/health")["journal_lag_bytes"] == 0
            stats = self.get("/monitoring/stats")
            tick = stats["tick"]  # None: the version has served nothing
            is_labelled = tick is None or tick["n_labels"] == tick["n_predictions"]
            return is_copied and is_labelled and stats["unseen_since"] is None

        wait_for(is_quiet, "a tick on the newest traffic")

    def wait_for_idle(self) -> None:
        """Until Dagster runs nothing: a run that the end interrupts would record where this machine has its Python."""
        url = f"http://127.0.0.1:{self.environment['DAGSTER_PORT']}/graphql"
        busy = "{ runsOrError(filter: {statuses: [QUEUED, STARTING, STARTED]}) { ... on Runs { results { runId } } } }"

        def is_idle() -> bool:
            answer = httpx.post(url, json={"query": busy}, timeout=60.0).raise_for_status().json()
            return answer["data"]["runsOrError"]["results"] == []

        wait_for(is_idle, "no run under way")


@contextlib.contextmanager
def without_model(platform: Platform, version: int) -> Iterator[None]:
    """A version's model file is gone, from the artifact store and from the cache, while the context is open."""
    (sha256,) = [
        v["artifact_sha256"] for v in platform.get("/model/versions")["versions"] if v["model_version"] == version
    ]
    files = [path for folder in ("mlflow", "cache") for path in (DATA_DIR / folder).rglob("*.skops")]
    hidden = [path for path in files if hashlib.sha256(path.read_bytes()).hexdigest() == sha256]
    assert hidden, f"version {version} has no file with sha256 {sha256}"
    for path in hidden:
        path.rename(path.with_name(f"{path.name}.hidden"))
    try:
        yield
    finally:
        for path in hidden:
            path.with_name(f"{path.name}.hidden").replace(path)


# The past


def live(platform: Platform) -> None:
    """All that the archive is to hold, in order. `start` keeps the rows of the phases apart."""
    wait_for(lambda: platform.version() == 1, "version 1 answers")
    platform.simulate("calm", rows=300, start=0)
    platform.wait_for_quiet()
    label_by_hand(platform)

    platform.simulate("income_in_cents", rows=320, start=300)  # of the newest 500 more than half
    broken = platform.wait_for_alert("broken_feed")
    note = {"note": "the sender is being mended"}
    platform.post(f"/monitoring/alerts/{broken['alert_id']}/acknowledge", note)
    platform.simulate("calm", rows=380, start=620)
    platform.wait_for_alert("broken_feed", is_open=False)

    for start in range(1_000, 5_000, 500):
        platform.simulate("rate_shock", rows=500, start=start)
        platform.wait_for_quiet()
        if start >= 2_000 and has_healed_soon(platform):
            break
    wait_for(lambda: platform.version() == 2, "version 2 answers")

    platform.simulate("rate_shock", rows=800, start=5_000)
    platform.wait_for_quiet()
    log.info(platform.cli("retrain", "--reason", "is there a better one already?"))
    platform.simulate("rate_shock", rows=100, start=5_800)  # the same rows would be the same training
    platform.wait_for_quiet()
    n_before = n_verdicts(platform)
    platform.post("/retrainings", {"reason": "asked over the API"}, 202)
    wait_for(lambda: n_verdicts(platform) > n_before, "a verdict on what was asked for over the API")

    switch_by_hand(platform)
    promoted_at = time.monotonic()
    watch_blindly(platform)
    wait_for(lambda: time.monotonic() - promoted_at > 5 * 60 + 5, "MLflow should have settled")
    move_alias(platform)
    platform.wait_for_alert("registry_strayed")
    platform.wait_for_alert("registry_strayed", is_open=False)
    platform.wait_for_alert("traffic_silent")
    with without_model(platform, 1):
        platform.simulate("rate_shock", rows=150, start=7_000)
        platform.wait_for_alert("probation_blind")
        platform.wait_for_quiet()
        platform.wait_for_idle()
        move_alias(platform)
        platform.wait_for_alert("registry_strayed")
        platform.wait_for_idle()


def label_by_hand(platform: Platform) -> None:
    """Labels as an application sends them: one twice, one that conflicts, and corrections of it."""
    row = {"age": 45, "debt_ratio": 0.8, "monthly_income": 9120, "open_credit_lines": 13, "revolving_utilization": 0.77}
    late = dict.fromkeys(
        ("times_30_59_days_late", "times_60_89_days_late", "times_90_days_late", "real_estate_loans"), 1
    )
    chosen = "0198f0f0-5c1e-7000-8000-000000000001"
    body = row | late | {"prediction_id": chosen, "request_source": "loan-desk"}
    batch = [row | late | {"dependents": n} for n in range(3)] + [row | late | {"age": -1}]
    platform.post("/predict", body)
    others = platform.post("/predict/batch?explain=true", {"instances": batch})["predictions"]
    label = {
        "prediction_id": chosen,
        "true_label": 1,
        "labelled_at": "2026-01-31T12:00:00Z",
        "label_source": "loan-desk",
    }
    platform.post("/labels", label)
    platform.post("/labels", label)
    platform.post("/labels", label | {"true_label": 0}, 409)
    platform.post("/labels", label | {"true_label": 0, "is_correction": True})
    platform.post("/labels", label | {"true_label": 1, "is_correction": True})
    labels = [{"prediction_id": other["prediction_id"], "true_label": 0} for other in others if other is not None]
    orphan = {"prediction_id": "0198f0f0-5c1e-7000-8000-0000000000ff", "true_label": 1}
    platform.post("/labels", {"labels": [*labels, orphan]})


def has_healed_soon(platform: Platform) -> bool:
    """Whether version 2 comes within a minute."""
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline and platform.version() != 2:
        time.sleep(1.0)
    return platform.version() == 2


def n_verdicts(platform: Platform) -> int:
    judged = "&".join(f"action={action}" for action in ("promote", "reject", "inconclusive"))
    return len(platform.get(f"/decisions?limit=500&{judged}")["decisions"])


def switch_by_hand(platform: Platform) -> None:
    """A rollback that is refused, one that is not, and a promotion without a verdict."""
    with without_model(platform, 1):
        platform.post("/rollbacks", {"reason": "version 1 was easier to explain"}, 409)
        platform.wait_for_alert("promotion_refused")
    platform.post("/rollbacks", {"reason": "version 1 was easier to explain", "from_version": 2})
    wait_for(lambda: platform.version() == 1, "version 1 answers again")
    platform.post("/promotions", {"model_version": 2, "reason": "explained, and better", "from_version": 1})
    wait_for(lambda: platform.version() == 2, "version 2 answers again")


def watch_blindly(platform: Platform) -> None:
    """A probation that cannot compare for a while."""
    with without_model(platform, 1):
        platform.simulate("rate_shock", rows=200, start=6_000)
        platform.wait_for_alert("probation_blind")
    platform.simulate("rate_shock", rows=150, start=6_500)
    platform.wait_for_alert("probation_blind", is_open=False)
    platform.wait_for_quiet()


def move_alias(platform: Platform) -> None:
    """Somebody points MLflow's alias at version 1."""
    (name,) = {v["model_name"] for v in platform.get("/model/versions")["versions"]}
    url = f"http://127.0.0.1:{platform.environment['MLFLOW_PORT']}/api/2.0/mlflow/registered-models/alias"
    body = {"name": name, "alias": "production", "version": "1"}
    httpx.post(url, json=body, timeout=60.0).raise_for_status()
    log.info("the alias is moved")


# The archive


def answers(platform: Platform) -> dict[str, Any]:
    """What the API says of the past, with nothing running that could change it."""
    platform.environment |= {"MONITORING_INTERVAL": "300", "TRAFFIC_SILENCE_HOURS": "24"}
    with platform.running("serving"):
        wait_for(lambda: platform.version() == 2, "the API answers")
        wait_for(lambda: platform.get("/health")["journal_lag_bytes"] == 0, "the journal is copied")
        found = {path: platform.get(path) for path in REMEMBERED}
        for decision in found["/decisions?limit=500"]["decisions"]:
            path = f"/decisions/{decision['decision_id']}"
            found[path] = platform.get(path)
    history = json.loads(platform.cli("history", "--json"))
    verification = json.loads(platform.cli("verify", "--verdicts", "100", "--json"))  # fails if it finds anything
    return {"api": found, "history": history, "verify": verification}


def pack(platform: Platform, commit: str, target: Path) -> None:
    """Writes the archive. Names, owners and order are the same whoever makes it."""
    (ROOT / "answers.json").write_text(json.dumps(answers(platform), indent=1))
    (ROOT / "fixture.json").write_text(json.dumps({"commit": commit, "root": str(ROOT)}))
    (ROOT / "dumps").mkdir()
    for name in DATABASES:
        path = str(ROOT / "dumps" / f"{name}.dump")
        platform.cli("postgres", "pg_dump", "--format", "custom", "--compress", "none", "--file", path, name)

    def portable(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uid = info.gid = 0
        info.uname = info.gname = "root"
        return info

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz", preset=9) as archive:
        for path in ("fixture.json", "answers.json", "dumps"):
            archive.add(ROOT / path, path, filter=portable)
        for path in sorted(DATA_DIR.rglob("*")):
            relative = f"./{path.relative_to(DATA_DIR)}"
            is_left_out = any(relative == out or relative.startswith(f"{out}/") for out in LEFT_OUT)
            if not is_left_out and path.suffix not in LEFT_OUT_SUFFIXES:
                archive.add(path, f"data/{relative[2:]}", recursive=False, filter=portable)
    target.write_bytes(buffer.getvalue())
    log.info("%s: %d bytes", target, target.stat().st_size)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # A shell starts what it runs in the background without SIGINT, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    commit = subprocess.run(
        ["git", "rev-parse", "--short=7", "HEAD"], capture_output=True, text=True, check=True
    ).stdout
    if ROOT.exists():
        raise SystemExit(f"{ROOT} exists; remove it first")
    ROOT.mkdir()
    with receiver() as address:
        ports = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
        checkout = {"PYTHONPATH": str(Path.cwd()), "NOTIFY_URLS": address}
        platform = Platform({**os.environ, **SETTINGS, **ports, **checkout})
        with platform.running("selfheal", "up"):
            live(platform)
    target = Path(__file__).resolve().parent / f"data_of_{commit.strip()}.tar.xz"
    pack(platform, commit.strip(), target)
    shutil.rmtree(ROOT)


if __name__ == "__main__":
    main()
