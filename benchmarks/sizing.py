"""What a prediction costs for ever: cores while it is answered and copied, and bytes in the journal and in Postgres.

Single rows over REST, each with its label afterwards, one API worker, the embedded Postgres. Cores are those of the API's processes
and of Postgres, not of the clients; bytes are those of the packed journal and of the traffic's tables with their indexes, vacuumed.
The tick, trainings and what monitoring stores are figures of `benchmarks.monitoring_scale`.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import httpx
import orjson
import psutil
import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from benchmarks.load import LoadResult, http_request, run_load
from benchmarks.measured import at_least, exactly
from benchmarks.stage import api_command, api_environment, free_port, prepare, request_rows, server
from selfheal.adapters.journal import LABEL_JOURNAL, compress, prediction_journal
from selfheal.adapters.postgres.cluster import running_server
from selfheal.services.platform import Platform

TABLES = ("prediction_logs", "label_store", "prediction_rollups")
N_CONNECTIONS = 64
N_LABELS_PER_REQUEST = 500
COPY_TIMEOUT_SECONDS = 600.0
PEAK_FACTOR = 10
"""How many times the day's mean the busiest second has: most traffic is asked for by people, by day."""

SECONDS_PER_DAY = 86_400
DAYS_PER_YEAR = 365
PREDICTIONS_A_DAY = (10_000, 100_000, 1_000_000, 10_000_000)


@dataclass(frozen=True)
class Footprint:
    """What was measured, over `n_predictions` with a label each."""

    n_predictions: int
    api_cpu_ms: float
    postgres_cpu_ms: float
    journal_bytes: float
    postgres_bytes: float
    api_rss_mb: float
    requests_per_second: float


@dataclass(frozen=True)
class Size:
    """What a platform with that traffic needs."""

    predictions_a_day: int
    peak_per_second: float
    peak_cores: float
    journal_gb_a_year: float
    postgres_gb_a_year: float


def sizes(found: Footprint) -> list[Size]:
    """Return what the figures mean for some volumes of traffic. Cores are those of API and Postgres in the busiest second."""
    made = []
    for n_a_day in PREDICTIONS_A_DAY:
        peak = PEAK_FACTOR * n_a_day / SECONDS_PER_DAY
        a_year = n_a_day * DAYS_PER_YEAR / 1e9
        cores = peak * (found.api_cpu_ms + found.postgres_cpu_ms) / 1_000
        made.append(Size(n_a_day, peak, cores, a_year * found.journal_bytes, a_year * found.postgres_bytes))
    return made


def main(
    data: Annotated[Path | None, typer.Option(help="A labelled CSV; without it synthetic rows.")] = None,
    seconds: Annotated[float, typer.Option(help="How long to send.")] = 30.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures there.")] = None,
    quick: Annotated[bool, typer.Option(help="A few seconds, for a look.")] = False,
) -> None:
    """Measure what a prediction costs, and print what that means for a day's traffic."""
    console = Console()
    with tempfile.TemporaryDirectory(prefix="selfheal-sizing-") as folder:
        Path(folder).chmod(0o755)
        platform, dataset = prepare(Path(folder), data, console, n_rows=5_000)
        try:
            bodies = [orjson.dumps(row) for row in request_rows(dataset, platform.contract, 5_000)]
            found = measure(platform, bodies, 3.0 if quick else seconds)
        finally:
            platform.close()
    show(found, console)
    if json_file is not None:
        json_file.write_text(
            json.dumps({"footprint": asdict(found), "sizes": list(map(asdict, sizes(found)))}, indent=2)
        )


def measure(platform: Platform, bodies: Sequence[bytes], seconds: float) -> Footprint:
    """Send predictions, then their labels; read what that took once everything is in Postgres."""
    settings, port = platform.settings, free_port()
    log = settings.data_dir.parent / "api.log"
    before = stored_bytes(platform)
    with server(api_command(), f"http://127.0.0.1:{port}/health/ready", log, **api_environment(settings, port)) as api:
        postgres = postmaster(settings.data_dir)
        api_began, postgres_began = cpu_seconds(api), cpu_seconds(postgres)
        requests = [http_request("/predict", body) for body in bodies]
        result = run_load(port, requests, n_connections=N_CONNECTIONS, seconds=seconds, keeps_answers=True)
        exactly(f"predictions that failed ({result.first_failure})", result.n_failed, 0)
        send_labels(port, result)
        wait_until_copied(port)
        api_cpu, postgres_cpu = cpu_seconds(api) - api_began, cpu_seconds(postgres) - postgres_began
        rss = api.memory_info().rss / 1e6
    n = result.n_answered
    exactly("predictions in Postgres", count(platform, "prediction_logs"), n)
    exactly("labels in Postgres", count(platform, "label_store"), n)
    return Footprint(
        n_predictions=n,
        api_cpu_ms=1_000 * api_cpu / n,
        postgres_cpu_ms=1_000 * postgres_cpu / n,
        journal_bytes=packed_journal_bytes(platform) / n,
        postgres_bytes=(stored_bytes(platform) - before) / n,
        api_rss_mb=rss,
        requests_per_second=result.requests_per_second,
    )


def send_labels(port: int, result: LoadResult) -> None:
    """Send a label for each prediction, many at a time."""
    ids = [orjson.loads(body)["prediction_id"] for _, body in result.answers]
    accepted = 0
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        for start in range(0, len(ids), N_LABELS_PER_REQUEST):
            some = [{"prediction_id": one, "true_label": 0} for one in ids[start : start + N_LABELS_PER_REQUEST]]
            accepted += client.post("/labels", json={"labels": some}).raise_for_status().json()["accepted"]
    exactly("labels accepted", accepted, len(ids))


def wait_until_copied(port: int) -> None:
    """Wait until the whole journal is in Postgres.

    Raises:
        TimeoutError: if that takes too long.
    """
    deadline = time.monotonic() + COPY_TIMEOUT_SECONDS
    while httpx.get(f"http://127.0.0.1:{port}/health", timeout=30).json()["journal_lag_bytes"] != 0:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the journal was not copied within {COPY_TIMEOUT_SECONDS:.0f} s")
        time.sleep(0.2)


def postmaster(data_dir: Path) -> psutil.Process:
    """Return the main process of the embedded Postgres."""
    found = running_server(data_dir / "postgres")
    assert found is not None, "the platform has started it"
    return psutil.Process(found.pid)


def cpu_seconds(process: psutil.Process) -> float:
    """Return what a process has used, with its children, alive and ended."""
    times = process.cpu_times()
    ended = times.user + times.system + times.children_user + times.children_system
    return float(ended + sum(cpu_seconds(child) for child in process.children()))


def stored_bytes(platform: Platform) -> int:
    """Return the size of the traffic's tables with their indexes, after a vacuum."""
    engine = platform.store.engine.execution_options(isolation_level="AUTOCOMMIT")
    total = 0
    with engine.connect() as connection:
        for table in TABLES:
            connection.execute(text(f"VACUUM {table}"))
            total += connection.execute(text("SELECT pg_total_relation_size(:table)"), {"table": table}).scalar_one()
    return total


def count(platform: Platform, table: str) -> int:
    """Return the number of rows of a table."""
    with platform.store.engine.connect() as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())  # noqa: S608  (our own table)


def packed_journal_bytes(platform: Platform) -> int:
    """Return the size of the journal once each file is packed, as the API packs those that are complete."""
    kinds = (prediction_journal(platform.contract), LABEL_JOURNAL)
    files = [path for kind in kinds for path in kind.files(platform.settings.data_dir)]
    at_least("files of the journal", len(files), len(kinds))
    return sum((compress(path) if path.suffix == ".csv" else path).stat().st_size for path in files)


def show(found: Footprint, console: Console) -> None:
    """Print the figures and what they mean."""
    for name, value in asdict(found).items():
        console.print(f"{name}: {value:,.2f}" if isinstance(value, float) else f"{name}: {value:,}")
    table = Table(title=f"A peak of {PEAK_FACTOR} times the mean", title_justify="left")
    for column in (
        "predictions a day",
        "peak a second",
        "cores at the peak",
        "journal GB a year",
        "Postgres GB a year",
    ):
        table.add_column(column, justify="right")
    for size in sizes(found):
        table.add_row(
            f"{size.predictions_a_day:,}",
            f"{size.peak_per_second:,.0f}",
            f"{size.peak_cores:.2f}",
            f"{size.journal_gb_a_year:,.2f}",
            f"{size.postgres_gb_a_year:,.2f}",
        )
    console.print(table)


if __name__ == "__main__":
    sys.exit(typer.run(main))
