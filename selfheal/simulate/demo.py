"""`selfheal demo`: the whole loop with real processes, watched from outside.

It starts `selfheal up` in a folder of its own, posts traffic and labels over REST, and otherwise only reads (REST, GraphQL): the
platform's own sensors detect the drift, retrain, judge and promote. At the end both versions score later drifted rows that
neither was trained on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import SecretStr
from rich.markup import escape

from selfheal.adapters.datasets import Dataset, load_dataset
from selfheal.domain.contract import TRUE_LABEL, ModelContract, load_contract
from selfheal.domain.scenarios import scenario_rows
from selfheal.kit.child_processes import log_end, with_our_programs
from selfheal.kit.errors import InvalidDataError, ServiceUnavailableError
from selfheal.kit.secret_files import SUFFIX
from selfheal.services.addresses import addresses
from selfheal.settings import Settings, load_settings, names_of_files
from selfheal.simulate.observer import DagsterReader
from selfheal.simulate.outcome import DemoOutcome
from selfheal.simulate.timeline import Timeline
from selfheal.simulate.traffic import TrafficSender, traffic_to

if TYPE_CHECKING:
    import httpx
    import pandas as pd
    from rich.console import Console

    from selfheal.domain.records import ScoreMetrics

BOOTSTRAP_SHARE, EVALUATION_SHARE = 0.6, 0.15
"""Shares of the data set: the first rows train version 1, the last ones evaluate the outcome, the others are traffic."""

MAX_BOOTSTRAP_ROWS = 12_000
CALM_ROWS = 500
LABEL_DELAY_SECONDS = 8.0
TIMEOUT_SECONDS = 240.0
"""For the start, and again for the healing, unless `--timeout` says otherwise."""

STOP_TIMEOUT_SECONDS = 30.0
ROWS_AFTER_SWAP = 100
"""Rows sent after the new version's first answer, so that the demo also covers requests after the swap."""

MIN_ROWS = 6_000


@dataclass(frozen=True, slots=True)
class RunningPlatform:
    """Where API and Dagster answer; the settings of this process must be those of that platform."""

    api: str
    dagster: str

    def poll(self) -> int | None:
        """Return None, as of a process that runs: whether it does is for others to see."""
        return None


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """The options of `selfheal demo`."""

    data: Path | None
    json_file: Path | None
    leave_running: bool
    scenario: str
    rate_per_second: float
    interval_seconds: int
    seed: int
    running: RunningPlatform | None = None
    """Where a platform runs that somebody else has started; None: the demo starts one."""

    timeout_seconds: float = TIMEOUT_SECONDS


@dataclass(frozen=True)
class DemoRows:
    """The divided data set; the scenario has changed `drifted` and `evaluation`, each made of rows of its own."""

    n_bootstrap: int
    calm: pd.DataFrame
    drifted: pd.DataFrame
    evaluation: pd.DataFrame


@dataclass
class Watch:
    """Observed events, with their times (Unix seconds)."""

    drift_began_at: float | None = None
    alert_seen_at: float | None = None
    served_at: float | None = None
    version: int | None = None
    swapped: asyncio.Event = field(default_factory=asyncio.Event)


async def run_demo(options: DemoOptions, console: Console) -> int:
    """Run the demo; return 0 only if the API came to serve a better version by itself."""
    started = time.monotonic()
    base = load_settings(**({"data": options.data} if options.data else {}))
    contract = load_contract(base.use_case)
    contract.scenario(options.scenario)  # a wrong name is an error before anything starts
    dataset = load_dataset(base, contract, all_rows=True)
    rows = divide(dataset, contract, options)
    folder = base.data_dir.expanduser().resolve() / f"demo-{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}"
    settings = demo_settings(base, options, folder, rows.n_bootstrap) if options.running is None else base
    outcome = DemoOutcome(dataset=dataset.origin)
    console.print(f"[bold]Demo of the loop on {dataset.description}[/], scenario [bold]{options.scenario}[/]")
    console.print(
        f"Lowered for the demo: MONITORING_INTERVAL={settings.monitoring_interval} s (300), "
        f"PROMOTION_COOLDOWN_DAYS={settings.promotion_cooldown_days:g} (7). Everything else is as shipped.\n"
        f"Everything it writes is in {settings.data_dir}"
    )
    timeline = Timeline(console)
    succeeded = False
    platform_process = start_platform(settings) if options.running is None else options.running
    try:
        with timeline:
            await _live_through(options, settings, contract, rows, outcome, timeline, platform_process)
            if outcome.version_after is not None:
                timeline.event("comparing both versions on later drifted rows that neither was trained on")
                await asyncio.to_thread(_compare, settings, rows.evaluation, outcome)
        succeeded = True
    finally:
        outcome.seconds_total = round(time.monotonic() - started, 1)
        if isinstance(platform_process, RunningPlatform):
            console.print("The platform was running before, and is left so.")
        elif options.leave_running and succeeded:
            _tell_what_is_left(console, settings, platform_process.pid)
        else:
            stop_platform(platform_process)
            if succeeded and outcome.healed:
                shutil.rmtree(folder, ignore_errors=True)
            else:
                console.print(f"Its files and logs are left for inspection: {folder}")
    if options.json_file is not None:
        options.json_file.write_text(json.dumps(asdict(outcome), indent=2) + "\n")
    timeline.print_verdict(outcome)
    return 0 if outcome.healed else 1


def _tell_what_is_left(console: Console, settings: Settings, pid: int) -> None:
    console.print(f"Left running (--keep); stop it with [bold]kill {pid}[/]. To explore:")
    for address in addresses(settings):
        console.print(f"  {address.name:<8} {address.url}", highlight=False)


def divide(dataset: Dataset, contract: ModelContract, options: DemoOptions) -> DemoRows:
    """Divide the data set into bootstrap, calm, drifted and evaluation rows, in its order.

    Raises:
        InvalidDataError: if there are too few rows for all four.
    """
    frame = dataset.frame
    if len(frame) < MIN_ROWS:
        raise InvalidDataError(f"the demo needs at least {MIN_ROWS:,} rows, {dataset.source} has {len(frame):,}")
    n_bootstrap = min(MAX_BOOTSTRAP_ROWS, int(len(frame) * BOOTSTRAP_SHARE))
    n_evaluation = int(len(frame) * EVALUATION_SHARE)
    after_calm = n_bootstrap + CALM_ROWS
    before_evaluation = len(frame) - n_evaluation
    return DemoRows(
        n_bootstrap=n_bootstrap,
        calm=frame.iloc[n_bootstrap:after_calm],
        drifted=scenario_rows(frame.iloc[after_calm:before_evaluation], contract, options.scenario, options.seed),
        evaluation=scenario_rows(frame.iloc[before_evaluation:], contract, options.scenario, options.seed + 1),
    )


def demo_settings(base: Settings, options: DemoOptions, folder: Path, n_bootstrap: int) -> Settings:
    """Return the platform's settings for the demo: a folder and ports of its own, a short interval, no cooldown.

    The demo requires the user's API keys if it knows one for its own traffic.
    """
    api_port, dagster_port, code_server_port, mlflow_port = free_ports(4)
    csv = options.data or base.data or default_csv(base)
    return base.model_copy(
        update={
            "data_dir": folder,
            "data": None if csv is None else csv.resolve(),
            "data_rows": n_bootstrap,
            "random_seed": options.seed,
            "secrets_dir": None,
            "database_url": None,
            "postgres_host": None,
            "mlflow_tracking_uri": None,
            "api_host": "127.0.0.1",
            "api_keys": base.api_keys if base.own_api_key is not None else SecretStr(""),
            "api_port": api_port,
            "dagster_port": dagster_port,
            "code_server_port": code_server_port,
            "mlflow_port": mlflow_port,
            "monitoring_interval": options.interval_seconds,
            "promotion_cooldown_days": 0.0,
        }
    )


def default_csv(settings: Settings) -> Path | None:
    """Return the contract's file in the configured data folder, because the demo's own folder does not have it."""
    path = settings.data_dir / load_contract(settings.use_case).default_csv
    return path if path.exists() else None


def free_ports(count: int) -> list[int]:
    """Return `count` ports on which nothing listens now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def settings_environment(settings: Settings) -> dict[str, str]:
    """Return the environment that makes another process load these settings. An empty value means: not set."""

    def text(value: Any) -> str:
        revealed = value.get_secret_value() if hasattr(value, "get_secret_value") else value
        return "" if revealed is None else str(revealed)

    kind = type(settings)
    variables = {name.upper(): text(getattr(settings, name)) for name in kind.model_fields}
    variables |= {f"{name}{SUFFIX}".upper(): "" for name in names_of_files(kind)}
    importable = os.pathsep.join((str(Path.cwd()), os.environ.get("PYTHONPATH", "")))  # where USE_CASE may be
    return os.environ | variables | {"PYTHONPATH": importable}


def start_platform(settings: Settings) -> subprocess.Popen[bytes]:
    """Start `selfheal up` in a session of its own; its output goes to DATA_DIR/up.log."""
    settings.data_dir.mkdir(parents=True)
    with (settings.data_dir / "up.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "selfheal", "up"],
            env=with_our_programs(settings_environment(settings)),
            cwd=settings.data_dir,  # no stray .env
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


def stop_platform(process: subprocess.Popen[bytes]) -> None:
    """Stop `up` as Ctrl-C does and wait for it; kill its session if it does not stop."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


async def _live_through(
    options: DemoOptions,
    settings: Settings,
    contract: ModelContract,
    rows: DemoRows,
    outcome: DemoOutcome,
    timeline: Timeline,
    process: subprocess.Popen[bytes] | RunningPlatform,
) -> None:
    import httpx

    own = (f"http://127.0.0.1:{port}" for port in (settings.api_port, settings.dagster_port))
    api, dagster = (process.api, process.dagster) if isinstance(process, RunningPlatform) else own
    async with httpx.AsyncClient(timeout=20.0) as client:
        timeline.phase("starting Postgres, Dagster, API and MLflow; training version 1")
        log = settings.data_dir / "up.log"
        outcome.version_before = await wait_until_ready(client, api, dagster, process, log, options.timeout_seconds)
        timeline.event(f"the API serves version {outcome.version_before}; watch it at {api}")
        watch = Watch(version=outcome.version_before)
        reader = DagsterReader(client, dagster, settings.own_api_key)
        async with (
            traffic_to(
                api,
                rate_per_second=options.rate_per_second,
                label_delay_seconds=LABEL_DELAY_SECONDS,
                source="demo",
                api_key=settings.own_api_key,
            ) as sender,
            _background(_observe(client, api, reader, sender, watch, timeline, process)),
        ):
            timeline.phase("calm traffic")
            await sender.send(rows.calm, contract)
            timeline.phase(f"drifted traffic ({options.scenario})")
            watch.drift_began_at = time.time()
            await _send_until_swapped(sender, rows.drifted, contract, watch, timeline, options.timeout_seconds)
    stats = sender.stats
    outcome.predictions, outcome.failed_requests = stats.predictions, stats.failed_requests
    if stats.first_failure is not None:
        timeline.event(f"[red]first failed request: {escape(stats.first_failure)}[/]")
    if watch.alert_seen_at is not None:
        outcome.seconds_drift_to_alert = round(watch.alert_seen_at - watch.drift_began_at, 1)
    if watch.served_at is not None and watch.alert_seen_at is not None:
        outcome.version_after = watch.version
        outcome.seconds_alert_to_served = round(watch.served_at - watch.alert_seen_at, 1)


async def _send_until_swapped(
    sender: TrafficSender,
    rows: pd.DataFrame,
    contract: ModelContract,
    watch: Watch,
    timeline: Timeline,
    timeout_seconds: float,
) -> None:
    """Send drifted rows until another version answers, and then some more; stop if rows or time run out."""
    spare = rows.iloc[-ROWS_AFTER_SWAP:]
    try:
        async with asyncio.timeout(timeout_seconds):
            await sender.send(rows.iloc[:-ROWS_AFTER_SWAP], contract, stop=watch.swapped)
            if not watch.swapped.is_set():
                timeline.phase("all drifted rows are sent: waiting for the platform")
                await watch.swapped.wait()
    except TimeoutError:
        timeline.event(f"[red]no new version after {timeout_seconds:.0f} s of drift[/]")
        return
    timeline.phase("traffic on the new version")
    await sender.send(spare, contract)


async def wait_until_ready(
    client: httpx.AsyncClient,
    api: str,
    dagster: str,
    process: subprocess.Popen[bytes] | RunningPlatform,
    log: Path,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> int:
    """Return the version that the API serves, once it and Dagster answer.

    Raises:
        ServiceUnavailableError: with the end of the log, if the platform stops, or takes longer than `timeout_seconds`.
    """
    import httpx

    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServiceUnavailableError(f"the platform stopped while starting; the end of {log}:\n{log_end(log)}")
        with contextlib.suppress(httpx.HTTPError, KeyError):
            health = await client.get(f"{api}/health")
            (await client.get(f"{dagster}/server_info")).raise_for_status()
            if health.status_code == 200:
                return int(health.json()["model_version"])
        await asyncio.sleep(0.5)
    raise ServiceUnavailableError(
        f"the platform did not start within {timeout_seconds:.0f} s; the end of {log}:\n{log_end(log)}"
    )


async def _observe(
    client: httpx.AsyncClient,
    api: str,
    dagster: DagsterReader,
    sender: TrafficSender,
    watch: Watch,
    timeline: Timeline,
    process: subprocess.Popen[bytes] | RunningPlatform,
) -> None:
    """Read the platform's state every second and report changes to the timeline."""
    import httpx

    seen: dict[str, float] = {}
    while True:
        with contextlib.suppress(httpx.HTTPError, ServiceUnavailableError):
            version = (await client.get(f"{api}/health")).json()["model_version"]
            if version is not None and version != watch.version:
                timeline.event(f"[bold green]the API serves version {version} (was {watch.version})[/]")
                watch.version, watch.served_at = version, time.time()
                watch.swapped.set()
            for asset, show in (
                ("monitoring_alerts", timeline.show_verdict),
                ("drift_report", timeline.show_drift),
                ("retraining_decision", timeline.show_decision),
                ("gate_verdict", timeline.show_gates),
            ):
                found = await dagster.latest(asset)
                if found is None or seen.get(asset) == found.timestamp_s:
                    continue
                seen[asset] = found.timestamp_s
                if watch.drift_began_at is not None or asset in {"monitoring_alerts", "drift_report"}:
                    show(found.metadata)
                is_alert = asset == "monitoring_alerts" and found.metadata.get("open_alerts")
                if is_alert and watch.drift_began_at is not None and watch.alert_seen_at is None:
                    watch.alert_seen_at = max(found.timestamp_s, watch.drift_began_at)
            failed = await dagster.failed_run()
            if failed is not None:
                timeline.warn(f"a Dagster run failed: {failed}")
        if process.poll() is not None:
            timeline.warn("the platform has stopped")
        timeline.traffic(sender.stats, watch.version)
        await asyncio.sleep(1.0)


def _compare(settings: Settings, rows: pd.DataFrame, outcome: DemoOutcome) -> None:
    """Score the same later rows with the files of both versions."""
    from selfheal.services.platform import open_platform

    platform = open_platform(settings)
    try:
        labels = rows[TRUE_LABEL].to_numpy(dtype=np.int64)
        features = platform.contract.matrix_of(platform.contract.feature_frame(rows))
        assert outcome.version_before is not None
        assert outcome.version_after is not None
        before = _metrics(platform, outcome.version_before, features, labels)
        after = _metrics(platform, outcome.version_after, features, labels)
    finally:
        platform.close()
    outcome.f1_before, outcome.f1_after = round(before.f1, 4), round(after.f1, 4)
    outcome.auc_before, outcome.auc_after = before.auc_roc, after.auc_roc
    is_better = after.f1 > before.f1 and (after.auc_roc or 0.0) > (before.auc_roc or 0.0)
    outcome.healed = is_better and outcome.failed_requests == 0


def _metrics(platform: Any, number: int, features: Any, labels: Any) -> ScoreMetrics:
    from selfheal.adapters.postgres.model_versions import model_version
    from selfheal.domain.monitoring.performance import score_metrics
    from selfheal.services.scoring import scoring_of

    version = model_version(platform.store, number)
    assert version is not None
    return score_metrics(labels, scoring_of(platform, version)(features), version.threshold)


@contextlib.asynccontextmanager
async def _background(work: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
