"""What does a tick cost, and how much disk space does a day of ticks need?

    python -m benchmarks.monitoring_scale --data cs-training.csv [--json outcome.json] [--quick]
    python -m benchmarks.monitoring_scale --data cs-training.csv --against ../other-checkout [--turns 20]

Windows of 1e4 to 1e7 predictions (24 hours, resampled rows, 30 % labelled) are written to Postgres with the triggers active. A
tick is `collect`, `compare`, `measure` and `conclude` in a fresh process; its imports and one warm-up tick are not measured.
Growth: real ticks under Dagster on new traffic, scaled to a day.

With `--against`, the tick of this build is compared with that of another checkout, in turns: each build gets the same rows and
labels under its own model, and a turn is the median of the ticks that the build's own `tick_here` measures in a fresh process.
The tick passes if old/new is at least 0.97, or if its 95 % interval reaches 1 (`benchmarks.ratio`).
"""

from __future__ import annotations

import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import numpy as np
import pandas as pd
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sqlalchemy import text

from benchmarks.against import AGAINST_HELP, MAX_TURNS, TURNS_HELP, conclude_comparison, n_turns_of
from benchmarks.builds import Build, checked_checkout, labelled_rows, score, two_builds, wait_until_drained
from benchmarks.growth import Growth, measure_growth
from benchmarks.measured import exactly
from benchmarks.ratio import Comparison, Measure, Side, turn_order
from benchmarks.stage import free_port, prepare, request_rows
from selfheal.adapters.postgres import model_versions, predictions
from selfheal.cli.supervisor import stop_in_order_on_signals
from selfheal.kit.child_processes import with_our_programs

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from selfheal.adapters.datasets import Dataset
    from selfheal.domain.contract import ModelContract
    from selfheal.services.platform import Platform

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
EVIDENTLY_ROWS = 1_000_000
COMPARED_ROWS, COMPARED_ROWS_QUICK = 100_000, 10_000
BATCH_ROWS = 1_000
LABELLED_SHARE = 0.3
ROWS_PER_INSERT = 250_000
WINDOW = timedelta(hours=23, minutes=59)
LIVE_SINCE = timedelta(hours=24)
"""How long ago the champion went live: before the window, because a tick ignores predictions in the future."""

N_TICKS = 5
TARGETS = {
    "vs_evidently_full_1e6": 0.1,
    "tick_growth_1e5_to_1e7": 1.5,
    "rss_growth_1e5_to_1e7": 1.5,
    "mb_per_day": 30.0,
}


@dataclass(frozen=True)
class TickCost:
    """Cost of a tick: `tick_s` is the median, of which `collect` takes `sql_s`; rows were loaded at `load_rows_per_s`."""

    n_rows: int
    tick_s: float
    sql_s: float
    peak_rss_mb: float
    load_rows_per_s: float


@dataclass(frozen=True)
class Outcome:
    """All measured figures. Ratios are of the windows of 1e7 and 1e5 rows (with `--quick`: of 1e6 and 1e4)."""

    ticks: tuple[TickCost, ...]
    evidently_full_1e6_s: float
    vs_evidently_full_1e6: float
    tick_growth_1e5_to_1e7: float
    rss_growth_1e5_to_1e7: float
    growth: Growth
    mb_per_day: float


def main(
    data: Annotated[Path | None, typer.Option(help="Labelled CSV; default: synthetic rows.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the outcome to this file.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Windows of up to 1e6 rows, fewer ticks.")] = False,
    against: Annotated[Path | None, typer.Option(metavar="PATH", callback=checked_checkout, help=AGAINST_HELP)] = None,
    turns: Annotated[int | None, typer.Option(min=2, max=MAX_TURNS, help=TURNS_HELP)] = None,
) -> None:
    """Measure the cost of monitoring, or with --against the time of this build's tick against another build's.

    With --against: exit code 1 if the tick takes longer (it decides nothing with --quick, or with fewer than 20 turns).
    """
    stop_in_order_on_signals()
    console = Console()
    n_turns = n_turns_of(turns, is_quick=quick, is_comparison=against is not None)
    with tempfile.TemporaryDirectory(prefix="selfheal-monitoring-scale-") as name:
        Path(name).chmod(0o755)  # as root, the embedded Postgres runs as a user of its own
        if against is not None:
            builds = two_builds(against, Path(name))
            compared = compare_builds(builds, data, console, n_turns=n_turns, is_quick=quick)
            conclude_comparison(compared, console, json_file)
            return
        outcome = measure(Path(name), data, console, SIZES[:3] if quick else SIZES, n_day_ticks=12 if quick else 48)
    show(outcome, console)
    if json_file is not None:
        json_file.write_text(json.dumps(asdict(outcome), indent=1))


def measure(folder: Path, data: Path | None, console: Console, sizes: tuple[int, ...], n_day_ticks: int) -> Outcome:
    """Measure ticks on windows of these sizes, and the growth of `n_day_ticks` ticks scaled to a day."""
    platform, dataset = prepare(folder, data, console)
    try:
        write_scored_rows(platform, dataset)
        live = backdate_champion(platform.store.engine)
        ticks: dict[int, TickCost] = {}
        evidently_s = float("nan")
        with Progress(console=console) as progress:
            task = progress.add_task("Rows", total=sum(sizes))
            for n_rows in sizes:
                began = time.perf_counter()
                fill_window(platform.store.engine, platform.contract, live, n_rows, lambda n: progress.advance(task, n))
                rate = n_rows * (1 + LABELLED_SHARE) / (time.perf_counter() - began)
                ticks[n_rows] = tick_cost(n_rows, in_fresh_process(platform, "tick"), rate)
                console.print(ticks[n_rows])
                if n_rows == EVIDENTLY_ROWS:
                    figures = in_fresh_process(platform, "evidently")
                    exactly("rows that Evidently was given", figures["n_rows"], n_rows)
                    evidently_s = figures["evidently_s"]
        empty(platform.store.engine)
        growth = measure_growth(platform, n_day_ticks, console)
    finally:
        platform.close()
    small, large = ticks[sizes[-3]], ticks[sizes[-1]]
    return Outcome(
        ticks=tuple(ticks.values()),
        evidently_full_1e6_s=evidently_s,
        vs_evidently_full_1e6=ticks[EVIDENTLY_ROWS].tick_s / evidently_s,
        tick_growth_1e5_to_1e7=large.tick_s / small.tick_s,
        rss_growth_1e5_to_1e7=large.peak_rss_mb / small.peak_rss_mb,
        growth=growth,
        mb_per_day=growth.mb_per_day,
    )


def tick_cost(n_rows: int, figures: dict[str, Any], load_rows_per_s: float) -> TickCost:
    """Return what a tick cost, if it was one on this window.

    Raises:
        MeasuredOtherwiseError: if its window held other rows.
    """
    check_window(figures, n_rows)
    exactly("ticks recorded", figures["n_ticks"], 1)  # a tick that is repeated writes the same row
    cost = {name: figures[name] for name in ("tick_s", "sql_s", "peak_rss_mb")}
    return TickCost(n_rows, **cost, load_rows_per_s=load_rows_per_s)


def check_window(figures: dict[str, Any], n_rows: int) -> None:
    """Check what a tick has counted in its window, if its build says so (`tick_here`): builds of old print times alone."""
    if "n_predictions" in figures:
        exactly("predictions in the tick's window", figures["n_predictions"], n_rows)
        exactly("labels in the tick's window", figures["n_labels"], sum(n % 10 < 3 for n in range(1, n_rows + 1)))


def compare_builds(
    builds: dict[Side, Build], data: Path | None, console: Console, *, n_turns: int, is_quick: bool
) -> Comparison:
    """Take ticks of the two builds in turns, `n_turns` each, on windows of the same rows."""
    n_rows = COMPARED_ROWS_QUICK if is_quick else COMPARED_ROWS
    contract, dataset = labelled_rows(data, builds["new"].folder)
    for build in builds.values():
        console.print(f"Training a version with the {build.side} build, {build.revision}")
        build.bootstrap(data)
    seconds: dict[Side, list[float]] = {"old": [], "new": []}
    with ExitStack() as databases, Progress(console=console) as progress:
        filling = progress.add_task("Rows", total=2 * n_rows)
        for build in builds.values():
            engine = databases.enter_context(build.postgres())
            log_scored_rows(build, engine, contract, dataset)
            fill_window(engine, contract, backdate_champion(engine), n_rows, lambda n: progress.advance(filling, n))
        task = progress.add_task("Turns", total=2 * n_turns)
        for order in turn_order(n_turns):
            for side in order:
                figures = builds[side].tick()
                check_window(figures, n_rows)
                seconds[side].append(figures["tick_s"])
                progress.advance(task)
    return Comparison(
        title=f"A tick on a window of {n_rows:,} rows, this build against the other",
        revisions={side: build.revision for side, build in builds.items()},
        measures=(Measure("tick", "s", False, tuple(seconds["old"]), tuple(seconds["new"])),),
        turns_are_short=is_quick,
    )


def log_scored_rows(build: Build, engine: Engine, contract: ModelContract, dataset: Dataset) -> None:
    """Write table `scored` as `write_scored_rows` does, with the scores of the build's API."""
    rows = request_rows(dataset, contract, len(dataset.frame))
    ids = [UUID(int=number + 1) for number in range(len(rows))]
    port = free_port()
    with build.api(port):
        for first in range(0, len(rows), BATCH_ROWS):
            batch = zip(rows[first : first + BATCH_ROWS], ids[first : first + BATCH_ROWS], strict=True)
            score(port, [row | {"prediction_id": str(prediction_id)} for row, prediction_id in batch])
        wait_until_drained(port)
    names = ", ".join(f'"{name}"' for name in contract.feature_names)
    labels = dataset.frame["true_label"].astype(int).tolist()
    with engine.begin() as connection:
        connection.execute(
            text("CREATE TEMPORARY TABLE asked (prediction_id uuid, number bigint, true_label smallint)")
        )
        with connection.connection.cursor().copy("COPY asked FROM STDIN") as copy:
            for number, (prediction_id, label) in enumerate(zip(ids, labels, strict=True)):
                copy.write_row((prediction_id, number, label))
        connection.execute(
            text(
                f"CREATE TABLE scored AS SELECT number, prediction, probability, {names}, true_label "  # noqa: S608
                "FROM prediction_logs JOIN asked USING (prediction_id)"
            )
        )
        connection.execute(text("ALTER TABLE scored ADD PRIMARY KEY (number)"))
        n_logged = int(connection.execute(text("SELECT count(*) FROM scored")).scalar_one())
    if n_logged != len(rows):
        raise RuntimeError(f"the {build.side} build logged {n_logged:,} of {len(rows):,} rows; its log is {build.log}")


@dataclass(frozen=True)
class Live:
    """The champion's fields that its traffic needs."""

    version: int
    threshold: float
    since: datetime


def backdate_champion(engine: Engine) -> Live:
    """Move the champion's promotion a day back, so that a complete window of its traffic is in the past."""
    query = """
        UPDATE model_metadata SET promoted_at = :since WHERE stage = 'Production'
        RETURNING version, threshold, promoted_at
    """
    with engine.begin() as connection:
        version, threshold, since = connection.execute(text(query), {"since": datetime.now(UTC) - LIVE_SINCE}).one()
    return Live(version, threshold, since)


def write_scored_rows(platform: Platform, dataset: Dataset) -> None:
    """Write the data set's rows with the champion's scores to table `scored`, numbered from 0."""
    contract = platform.contract
    champion = model_versions.champion(platform.store)
    features = contract.feature_frame(dataset.frame)
    scores = platform.registry.load(champion).predict_proba(features.to_numpy(dtype=np.float64))[:, 1]
    columns = {"prediction": (scores >= champion.threshold).astype(int), "probability": scores}
    whole = {name: features[name].astype("Int64") for name in features if contract.kinds[name] == "int"}
    frame = pd.concat([pd.DataFrame(columns), features.assign(**whole)], axis=1)
    frame["true_label"] = dataset.frame["true_label"].to_numpy()
    names = ", ".join(f'"{name}"' for name in contract.feature_names)
    buffer = io.BytesIO()
    frame.to_csv(buffer, header=False, index_label="number")
    with platform.store.engine.begin() as connection:
        connection.execute(
            text(
                f"CREATE TABLE scored AS SELECT 0::bigint AS number, prediction, probability, {names}, "  # noqa: S608
                "0::smallint AS true_label FROM prediction_logs LIMIT 0"
            )
        )
        with connection.connection.cursor().copy("COPY scored FROM STDIN (FORMAT csv)") as copy:
            copy.write(buffer.getvalue())
        connection.execute(text("ALTER TABLE scored ADD PRIMARY KEY (number)"))


def fill_window(
    engine: Engine, contract: ModelContract, live: Live, n_rows: int, on_rows: Callable[[int], None]
) -> None:
    """Empty the tables and write a window of resampled rows, spread evenly over its time."""
    empty(engine)
    names = ", ".join(f'"{name}"' for name in contract.feature_names)
    chosen = """
        SELECT md5(n::text)::uuid AS prediction_id, n, s.*,
               CAST(:start AS timestamptz) + n * CAST(:step_s AS float8) * interval '1 second' AS created_at
        FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) n
        JOIN scored s ON s.number = (hashint8extended(n, 1) & 1073741823) % (SELECT count(*) FROM scored)
    """
    insert = f"""
        INSERT INTO prediction_logs (prediction_id, created_at, model_version, prediction, probability, threshold,
                                     request_source, latency_ms, {names})
        SELECT prediction_id, created_at, :version, prediction, probability, :threshold, 'benchmark', 1.5, {names}
        FROM ({chosen}) c ORDER BY n
    """  # noqa: S608  (names of our own contract)
    label = f"""
        INSERT INTO label_store (prediction_id, true_label, labelled_at, received_at, label_source)
        SELECT prediction_id, true_label, created_at, created_at, 'benchmark' FROM ({chosen}) c WHERE n % 10 < 3
    """  # noqa: S608
    for first in range(1, n_rows + 1, ROWS_PER_INSERT):
        last = min(n_rows, first + ROWS_PER_INSERT - 1)
        values = {
            "start": live.since,
            "step_s": WINDOW.total_seconds() / n_rows,
            "first": first,
            "last": last,
            "version": live.version,
            "threshold": live.threshold,
        }
        with engine.begin() as connection:
            connection.execute(text("SET LOCAL synchronous_commit = off"))
            connection.execute(text(insert), values)
            connection.execute(text(label), values)
        on_rows(last - first + 1)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE prediction_logs"))
        connection.execute(text("VACUUM ANALYZE label_store"))
        connection.execute(text("VACUUM ANALYZE prediction_rollups"))
        connection.execute(text("CHECKPOINT"))


def empty(engine: Engine) -> None:
    """Empty the tables of predictions, labels and ticks."""
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE prediction_logs, label_store, monitoring_metrics"))


# Code of the fresh process


def in_fresh_process(platform: Platform, what: str) -> dict[str, Any]:
    """Call `<what>_here` of this module in a fresh process and return the figures it prints."""
    settings = platform.settings
    environment = {"DATA_DIR": str(settings.data_dir.resolve()), "USE_CASE": settings.use_case}
    command = [sys.executable, "-c", f"from benchmarks.monitoring_scale import {what}_here as here; here()"]
    done = subprocess.run(  # noqa: S603  (our own command, no shell)
        command, env=with_our_programs(os.environ | environment), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{what} failed: {done.stderr[-2_000:]}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def tick_here() -> None:
    """Print the cost of a tick in this process. Other builds rely on this name and module: see `benchmarks.builds`."""
    from selfheal.services.platform import open_platform
    from selfheal.services.tick import collect, compare, conclude, measure
    from selfheal.settings import load_settings

    platform = open_platform(load_settings())
    ticks: list[float] = []
    looks: list[float] = []
    for _ in range(N_TICKS + 1):
        began = time.perf_counter()
        proxy = collect(platform, datetime.now(UTC))
        assert proxy is not None
        looks.append(time.perf_counter() - began)
        drift = compare(platform, proxy.window)
        performance = measure(platform, proxy.window)
        conclude(platform, proxy, drift, performance, datetime.now(UTC))
        ticks.append(time.perf_counter() - began)
    with platform.store.engine.connect() as connection:
        n_ticks = int(connection.execute(text("SELECT count(*) FROM monitoring_metrics")).scalar_one())
    platform.close()
    _print_figures(
        tick_s=statistics.median(ticks[1:]),
        sql_s=statistics.median(looks[1:]),
        n_predictions=proxy.window.n_predictions,
        n_labels=proxy.window.n_labels,
        n_ticks=n_ticks,
    )


def evidently_here() -> None:
    """Print how long Evidently takes with its defaults on all rows of the window."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    from selfheal.services.platform import open_platform
    from selfheal.services.tick import collect
    from selfheal.settings import load_settings

    platform = open_platform(load_settings())
    proxy = collect(platform, datetime.now(UTC))
    assert proxy is not None
    began = time.perf_counter()
    rows = predictions.window_rows(platform.store, proxy.window, proxy.window.n_predictions)
    names = [*platform.contract.feature_names, "probability"]
    reference = platform.registry.reference(model_versions.champion(platform.store))
    definition = DataDefinition(numerical_columns=names)
    Report([DataDriftPreset()]).run(
        Dataset.from_pandas(rows[names], definition), Dataset.from_pandas(reference[names], definition)
    )
    seconds = time.perf_counter() - began
    platform.close()
    _print_figures(evidently_s=seconds, n_rows=len(rows))


def _print_figures(**figures: float) -> None:
    if "tick_s" in figures:
        status = Path("/proc/self/status").read_text()  # getrusage would count the parent's memory at the fork
        figures["peak_rss_mb"] = int(status.partition("VmHWM:")[2].split()[0]) / 1e3
    print(json.dumps(figures))


def show(outcome: Outcome, console: Console) -> None:
    """Print the outcome as tables with the targets."""
    ticks = Table(title="A tick", title_justify="left")
    for column in ("rows in the window", "tick_s", "of it sql_s", "peak_rss_mb", "loaded rows/s"):
        ticks.add_column(column, justify="right")
    for tick in outcome.ticks:
        ticks.add_row(
            f"{tick.n_rows:,}",
            f"{tick.tick_s:.3f}",
            f"{tick.sql_s:.4f}",
            f"{tick.peak_rss_mb:,.0f}",
            f"{tick.load_rows_per_s:,.0f}",
        )
    console.print(ticks)
    table = Table(title="Monitoring at scale", title_justify="left")
    for column in ("measure", "value", "target", ""):
        table.add_column(column, justify="right" if column == "value" else "left")
    figures = {name: value for name, value in asdict(outcome).items() if isinstance(value, float)}
    for name, value in (figures | {f"growth: {k}": v for k, v in asdict(outcome.growth).items()}).items():
        target = TARGETS.get(name)
        verdict = "" if target is None else "met" if value <= target else "missed"
        table.add_row(name, f"{value:,.4g}", "" if target is None else f"<= {target:g}", verdict)
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
