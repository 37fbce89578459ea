"""What a look at the traffic costs, and what a day of looks leaves on the disk.

    python -m benchmarks.monitoring_scale --data cs-training.csv [--json outcome.json] [--quick]

Windows of 1e4 to 1e7 predictions (24 hours, resampled rows, 30 % labelled) are put into Postgres with the triggers on, as
any writer would. A tick is `look`, `compare`, `measure` and `conclude` in a fresh process whose imports, and one tick that
does not count, are done before the clock starts. Growth: real ticks under Dagster on new traffic, scaled to a day.
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
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pandas as pd
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sqlalchemy import text

from benchmarks.growth import Growth, measure_growth
from benchmarks.stage import prepare
from selfheal.adapters.postgres import model_versions, predictions
from selfheal.cli.supervisor import stop_in_order_on_signals

if TYPE_CHECKING:
    from selfheal.adapters.datasets import Dataset
    from selfheal.services.platform import Platform

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
EVIDENTLY_ROWS = 1_000_000
LABELLED_SHARE = 0.3
ROWS_PER_INSERT = 250_000
WINDOW = timedelta(hours=23, minutes=59)
N_TICKS = 5
TARGETS = {
    "vs_evidently_full_1e6": 0.1,
    "tick_growth_1e5_to_1e7": 1.5,
    "rss_growth_1e5_to_1e7": 1.5,
    "mb_per_day": 30.0,
}


@dataclass(frozen=True)
class TickCost:
    """`tick_s` is the median of the ticks, `sql_s` what of it `look` takes; `load_rows_per_s` is how fast rows came in."""

    n_rows: int
    tick_s: float
    sql_s: float
    peak_rss_mb: float
    load_rows_per_s: float


@dataclass(frozen=True)
class Outcome:
    """Growth is a ratio: of the windows of 1e5 and 1e7 rows (with `--quick`: of 1e4 and 1e6)."""

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
) -> None:
    """Measure the cost of monitoring."""
    stop_in_order_on_signals()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="selfheal-monitoring-scale-") as name:
        Path(name).chmod(0o755)  # as root, the embedded Postgres runs as a user of its own
        outcome = measure(Path(name), data, console, SIZES[:3] if quick else SIZES, n_day_ticks=12 if quick else 48)
    show(outcome, console)
    if json_file is not None:
        json_file.write_text(json.dumps(asdict(outcome), indent=1))


def measure(folder: Path, data: Path | None, console: Console, sizes: tuple[int, ...], n_day_ticks: int) -> Outcome:
    platform, dataset = prepare(folder, data, console)
    try:
        keep_scored_rows(platform, dataset)
        ticks: dict[int, TickCost] = {}
        evidently_s = float("nan")
        with Progress(console=console) as progress:
            task = progress.add_task("Rows", total=sum(sizes))
            for n_rows in sizes:
                began = time.perf_counter()
                fill_window(platform, n_rows, lambda n: progress.advance(task, n))
                rate = n_rows * (1 + LABELLED_SHARE) / (time.perf_counter() - began)
                ticks[n_rows] = TickCost(n_rows, **in_fresh_process(platform, "tick"), load_rows_per_s=rate)
                console.print(ticks[n_rows])
                if n_rows == EVIDENTLY_ROWS:
                    evidently_s = in_fresh_process(platform, "evidently")["evidently_s"]
        empty(platform)
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


def keep_scored_rows(platform: Platform, dataset: Dataset) -> None:
    """The data set's rows with the champion's scores, as table `scored`, numbered from 0."""
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


def fill_window(platform: Platform, n_rows: int, on_rows: Any) -> None:
    """Empties the tables and writes a window of resampled rows, spread evenly over it."""
    empty(platform)
    names = ", ".join(f'"{name}"' for name in platform.contract.feature_names)
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
    champion = model_versions.champion(platform.store)
    assert champion.promoted_at is not None
    for first in range(1, n_rows + 1, ROWS_PER_INSERT):
        last = min(n_rows, first + ROWS_PER_INSERT - 1)
        values = {
            "start": champion.promoted_at,
            "step_s": WINDOW.total_seconds() / n_rows,
            "first": first,
            "last": last,
            "version": champion.version,
            "threshold": champion.threshold,
        }
        with platform.store.engine.begin() as connection:
            connection.execute(text("SET LOCAL synchronous_commit = off"))
            connection.execute(text(insert), values)
            connection.execute(text(label), values)
        on_rows(last - first + 1)
    with platform.store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE prediction_logs"))
        connection.execute(text("VACUUM ANALYZE label_store"))
        connection.execute(text("VACUUM ANALYZE prediction_rollups"))
        connection.execute(text("CHECKPOINT"))


def empty(platform: Platform) -> None:
    with platform.store.engine.begin() as connection:
        connection.execute(text("TRUNCATE prediction_logs, label_store, monitoring_metrics"))


# What runs in the fresh process


def in_fresh_process(platform: Platform, what: str) -> dict[str, Any]:
    settings = platform.settings
    environment = {"DATA_DIR": str(settings.data_dir.resolve()), "USE_CASE": settings.use_case}
    command = [sys.executable, "-c", f"from benchmarks.monitoring_scale import {what}_here as here; here()"]
    done = subprocess.run(  # noqa: S603  (our own command, no shell)
        command, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{what} failed: {done.stderr[-2_000:]}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def tick_here() -> None:
    """Prints what a tick costs in this process."""
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
        drift = compare(platform, proxy.window).report
        performance = measure(platform, proxy.window)
        conclude(platform, proxy, drift, performance, datetime.now(UTC))
        ticks.append(time.perf_counter() - began)
    platform.close()
    _print_figures(tick_s=statistics.median(ticks[1:]), sql_s=statistics.median(looks[1:]))


def evidently_here() -> None:
    """Prints how long Evidently takes, with its defaults, for every row of the window."""
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
    _print_figures(evidently_s=seconds)


def _print_figures(**figures: float) -> None:
    if "tick_s" in figures:
        status = Path("/proc/self/status").read_text()  # getrusage would count the parent's memory at the fork
        figures["peak_rss_mb"] = int(status.partition("VmHWM:")[2].split()[0]) / 1e3
    print(json.dumps(figures))


def show(outcome: Outcome, console: Console) -> None:
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
