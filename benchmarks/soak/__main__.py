"""`python -m benchmarks.soak`: see `benchmarks.soak`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import httpx
import psycopg
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.crash.kept_word import journal_lines, logged_labels, logged_rows, n_duplicated
from benchmarks.crash.processes import kill, platform_environment, settings_of, traffic
from benchmarks.crash.states import roomy_folder
from benchmarks.running_platform import PlatformIsStuckError, RunningPlatform
from benchmarks.soak.filling import NotFilledError, fill
from benchmarks.soak.measured import bounds_of, changed_most, floors_of, slopes_of
from benchmarks.soak.outcome import Outcome, show
from benchmarks.soak.plan import FIRST_KILLS, QUICK, Done, Plan, later_victim, short_of
from benchmarks.soak.samples import Sampler
from benchmarks.soak.upkeep import IN_DAYS, MINUTES_PER_DAY
from benchmarks.stage import prepare, request_rows
from benchmarks.witness import Ledger
from selfheal.adapters.journal import LABEL_JOURNAL, prediction_journal
from selfheal.adapters.postgres.embedded import url_if_running
from selfheal.adapters.postgres.ingest import ingest
from selfheal.domain.contract import TRUE_LABEL
from selfheal.domain.scenarios import scenario_rows
from selfheal.services.platform import open_platform
from selfheal.services.verification.run import verify_everything

if TYPE_CHECKING:
    from collections.abc import Callable

    from selfheal.adapters.datasets import Dataset
    from selfheal.domain.contract import ModelContract
    from selfheal.services.platform import Platform
    from selfheal.settings import Settings

CALM_ROWS, DRIFTED_ROWS = 4_000, 2_000
N_CLIENTS = 3
CLIENT_PAUSE_SECONDS = 0.3
LABELLED_SHARE = 0.4

KILL_TRIES = 3
"""A run may end by itself just before it would be killed."""

SETTLING_SECONDS = 100.0
"""Before the end nothing is promoted by force: MLflow follows within a minute, and `verify` compares."""


def main(
    hours: Annotated[float, typer.Option(min=0.05, max=24 * 30, help="How long.")] = 2.0,
    data: Annotated[Path | None, typer.Option(help="Labelled CSV; default: synthetic rows.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the outcome to this file.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Minutes only: everything happens, no slope is judged.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of traffic and kills.")] = 20,
) -> None:
    """Run the platform for hours, and measure what grows. Exit code 1 if anything may, or if it did not keep its word."""
    console, plan = Console(), QUICK if quick else Plan(hours)
    signal.signal(signal.SIGTERM, lambda signum, _: sys.exit(128 + signum))  # as Ctrl-C: take everything down
    random.seed(seed)
    with roomy_folder("selfheal-soak-") as folder:
        outcome = soak(folder, data, plan, console, is_quick=quick)
    show(outcome, console)
    if json_file is not None:
        json_file.write_text(json.dumps(outcome.to_dict(), indent=1))
    raise typer.Exit(1 if outcome.problems else 0)


def soak(folder: Path, data: Path | None, plan: Plan, console: Console, *, is_quick: bool) -> Outcome:
    """Prepare two versions, run the platform as planned, stop it, and compare what is there with what was answered."""
    prepared, dataset = prepare(folder, data, console, n_rows=12_000 if data else None)
    contract = prepared.contract
    prepared.close()
    environment = platform_environment(data) | {"PROMOTION_COOLDOWN_DAYS": "0.01", "JOURNAL_MAX_MB": "1"}
    platform = RunningPlatform(folder, environment)
    settings, ledger = settings_of(platform), mixed_ledger(dataset, contract)
    done = Done()
    sampler = Sampler(platform, plan.sample_s, kept_every=3, count_answers=lambda: len(ledger.acknowledged))
    console.print("Starting `selfheal up`")
    try:
        platform.start()
        clients = {
            "pause_seconds": CLIENT_PAUSE_SECONDS,
            "labelled_share": LABELLED_SHARE,
            "label_delay_seconds": plan.label_delay_s,
        }
        with traffic(ledger, platform, N_CLIENTS, **clients):
            sampler.start()
            filled = _live_through(platform, ledger, plan, done, console)
            sampler.stop()
        for process in platform.stop():
            done.stuck.append(f"after Ctrl-C process {process.pid} lives on")
    finally:
        platform.kill_everything()
    done.n_starts = platform.n_starts
    done.n_api_lives_measured = sampler.n_lives("api", plan.settled_s)
    for one in filled:
        ledger.acknowledged += one.acknowledged
        ledger.labels |= one.labels
    return _outcome(settings, ledger, sampler, done, plan, is_quick=is_quick)


def mixed_ledger(dataset: Dataset, contract: ModelContract) -> Ledger:
    """Return traffic that is calm for a while and drifted for a while, round and round, with what turns out to be true."""
    calm = dataset.frame.head(CALM_ROWS)
    drifted = scenario_rows(
        dataset.frame.iloc[CALM_ROWS : CALM_ROWS + DRIFTED_ROWS].reset_index(drop=True),
        contract,
        contract.first_scenario.name,
        20,
    )
    rows, labels = [], []
    for frame in (calm, drifted):
        rows += request_rows(dataclasses.replace(dataset, frame=frame), contract, len(frame))
        labels += frame[TRUE_LABEL].astype(int).tolist()
    return Ledger(rows, labels)


def _live_through(platform: RunningPlatform, ledger: Ledger, plan: Plan, done: Done, console: Console) -> list[Ledger]:
    """Do what is due, until the time is up; each kill is a line. Return what filled the API's memory."""
    began, filled = time.monotonic(), list[Ledger]()
    due = {"kill": plan.first_kill_s, "maintain": plan.maintain_s, "promote": plan.promote_s / 2, "fill": plan.first_s}
    victims = _victims(plan)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("soak", total=plan.seconds)
        while (seconds := time.monotonic() - began) < plan.seconds:
            progress.update(
                bar, completed=seconds, description=f"soak ({len(done.ticks):,} ticks, {done.kills.total()} kills)"
            )
            for what in [name for name, when in due.items() if seconds >= when]:
                due[what] = plan.next_after(what, seconds)
                if what == "kill":
                    role = victims(seconds)
                    _kill_one(platform, role, done)
                    console.print(
                        f"{seconds:,.0f} s: kill -9 {role}; {len(done.ticks):,} ticks so far", highlight=False
                    )
                elif what == "fill":
                    filled += _fill(platform, ledger, plan, done, console)
                elif what == "maintain":
                    _maintain(platform, plan, done)
                elif seconds < plan.seconds - SETTLING_SECONDS:
                    _promote_other(platform, done)
            _note_ticks(platform, done)
            time.sleep(1.0)
        progress.update(bar, completed=plan.seconds)
    return filled


def _victims(plan: Plan) -> Callable[[float], str]:
    """Return who is killed at a time: each process once, then any; later only what is short-lived anyway."""
    first, numbers = list(FIRST_KILLS), count(1)
    random.shuffle(first)

    def victim(seconds: float) -> str:
        if seconds >= plan.first_s:
            return later_victim(next(numbers))
        return first.pop() if first else random.choice(FIRST_KILLS)

    return victim


def _fill(platform: RunningPlatform, ledger: Ledger, plan: Plan, done: Done, console: Console) -> list[Ledger]:
    """Fill the API's bounded memories, once all that is killed of it has been killed."""
    began = time.monotonic()
    try:
        filler = fill(f"http://127.0.0.1:{platform.api_port}", ledger, plan.n_filled)
    except NotFilledError as error:
        done.not_filled = str(error)
        return []
    done.n_filled = len(filler.labels)
    console.print(f"{done.n_filled:,} labelled predictions to fill the API's memory: {time.monotonic() - began:.0f} s")
    return [filler]


def _kill_one(platform: RunningPlatform, role: str, done: Done) -> None:
    if not any(kill(platform, role) for _ in range(KILL_TRIES)):
        done.stuck.append(f"there was no process {role} to kill")
        return
    done.kills[role] += 1
    try:
        time.sleep(1.0)
        platform.ensure_up()
    except PlatformIsStuckError as error:
        done.stuck.append(f"after a kill of {role}: {error}")
        platform.kill_everything()
        platform.ensure_up()


def _maintain(platform: RunningPlatform, plan: Plan, done: Done) -> None:
    """Delete what is minutes old, in a process of its own; one that Postgres fails in the middle of goes on next time."""
    environment = os.environ | platform.settings_environment() | {"DAGSTER_HOME": str(platform.data_dir / "dagster")}
    command = [sys.executable, "-m", "benchmarks.soak.upkeep", str(plan.retention_minutes)]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)  # noqa: S603
    if found.returncode:
        return
    done.maintenances += 1
    done.deleted.update({name: int(n) for name, n in re.findall(r"n_(\w+)=(\d+)", found.stdout)})


def _promote_other(platform: RunningPlatform, done: Done) -> None:
    """Put the other one of the first two versions into production: predictions of before may then be deleted."""
    address = f"http://127.0.0.1:{platform.api_port}"
    with contextlib.suppress(httpx.HTTPError, KeyError, ValueError):
        live = int(httpx.get(f"{address}/health", timeout=10).json()["model_version"])
        body = {"model_version": 2 if live == 1 else 1, "reason": "soak"}
        done.promotions += httpx.post(f"{address}/promotions", json=body, timeout=60).status_code == 200


def _note_ticks(platform: RunningPlatform, done: Done) -> None:
    with contextlib.suppress(psycopg.Error, OSError):
        url = url_if_running(platform.data_dir / "postgres", "selfheal")
        if url is not None:
            with psycopg.connect(url, connect_timeout=2) as connection:
                done.ticks |= {row[0] for row in connection.execute("SELECT tick_id FROM monitoring_metrics")}


def _outcome(
    settings: Settings, ledger: Ledger, sampler: Sampler, done: Done, plan: Plan, *, is_quick: bool
) -> Outcome:
    """Compare what is there with what was answered, and what was measured with what was planned."""
    platform = open_platform(settings)
    try:
        for kind in (prediction_journal(platform.contract), LABEL_JOURNAL):
            ingest(platform.store, kind, settings.data_dir)
        lost, duplicated, wrong = _against_answers(platform, ledger)
        in_minutes = settings.model_copy(update=dict.fromkeys(IN_DAYS, plan.retention_minutes / MINUTES_PER_DAY))
        verified = verify_everything(dataclasses.replace(platform, settings=in_minutes))
        findings = [one for result in verified.results for one in result.findings]
    finally:
        platform.close()
    floors = floors_of(sampler.series, plan)
    return Outcome(
        hours=sampler.seconds_sampled / 3_600,
        slope_pct_per_day=slopes_of(floors),
        bounds=bounds_of(
            sampler.series,
            plan,
            shared_limit_bytes=sampler.shared_limit_bytes,
            n_acknowledged=len(ledger.acknowledged),
            max_reports=settings.max_drift_reports,
        ),
        floors={name: {measure: one.values for measure, one in found.items()} for name, found in floors.items()},
        kept_parts=changed_most(sampler.parts, plan.settled_s),
        acknowledged=len(ledger.acknowledged),
        labels_acknowledged=len(ledger.labels),
        lost=lost,
        duplicated=duplicated,
        wrong_values=wrong,
        verify_findings=tuple(findings),
        stuck=tuple(done.stuck),
        kills_by=dict(done.kills),
        ticks=len(done.ticks),
        maintenances=done.maintenances,
        promotions=done.promotions,
        n_starts=done.n_starts,
        deleted=dict(done.deleted),
        short_of=tuple(short_of(done, plan, ledger)),
        is_quick=is_quick,
    )


def _against_answers(platform: Platform, ledger: Ledger) -> tuple[int, int, int]:
    """Return how many acknowledged predictions and labels are lost, doubled and changed.

    Postgres has each labelled prediction; one without a label may be deleted there, and is in the journal.
    """
    logged, labels = logged_rows(platform), logged_labels(platform)
    in_journal = journal_lines(platform, [platform.settings.data_dir])
    in_postgres = set(logged.index)
    lost = sum(ack.prediction_id not in in_journal for ack in ledger.acknowledged)
    lost += sum(one not in labels or one not in in_postgres for one in ledger.labels)
    told = {ack.prediction_id: ack for ack in ledger.acknowledged}
    wrong = sum(labels.get(one, label) != label for one, label in ledger.labels.items())
    for prediction_id, probability in logged["probability"].items():
        ack = told.get(prediction_id)
        wrong += ack is not None and ack.probability != probability
    return lost, n_duplicated(logged), wrong


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    app()
