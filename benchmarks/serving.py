"""How fast is an acknowledged prediction, and does a model swap affect requests?

    python -m benchmarks.serving --data cs-training.csv [--json serving.json] [--quick]
    python -m benchmarks.serving --data cs-training.csv --against ../other-checkout [--turns 20]

One API process is compared with its peers in the same run, on the same rows and model: a FastAPI endpoint that echoes its body,
MLflow's scoring server, and the API itself with JOURNAL_FSYNC=off. Servers are loaded in turns and each figure is the median of
its turns, so that other load on the machine affects all of them. Then batches are compared with the same work in one process.
Single rows are measured beside batches of 10,000 rows, good and misspelt ones (`benchmarks.beside_batches`).
Finally versions are swapped repeatedly under full load, and every score is recomputed with the version that it names.

With `--against`, this build is compared with that of another checkout: each trains its own model on the same rows, and both get
the same requests, in turns of `POST /predict` and `POST /predict/batch`. Each pair of turns has its own API processes, so that
differences between processes of one build count as noise. A rate passes if no request failed and new/old is at least 0.97 or its
95 % interval reaches 1 (`benchmarks.ratio`).
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import orjson
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sqlalchemy import text

from benchmarks.against import AGAINST_HELP, MAX_TURNS, TURNS_HELP, conclude_comparison, n_turns_of
from benchmarks.beside_batches import measure_waits
from benchmarks.builds import Build, checked_checkout, labelled_rows, score, two_builds, wait_until_drained
from benchmarks.load import LoadResult, http_request, run_load
from benchmarks.measured import at_least, exactly, within
from benchmarks.ratio import Comparison, Measure, Side, turn_order
from benchmarks.stage import api_command, api_environment, free_port, prepare, request_rows, server
from selfheal.adapters.postgres import model_versions
from selfheal.cli.supervisor import stop_in_order_on_signals
from selfheal.domain.contract import FloatArray, ModelContract
from selfheal.domain.records import Action, Decision, Trigger
from selfheal.kit.serialization import digest_of
from selfheal.services.platform import Platform
from selfheal.services.scoring import scoring_of

N_CONNECTIONS = 256
BATCH_ROWS = 1_000
BATCH_CONNECTIONS = 2
"""Connections for batches: the server processes one batch while the next one is sent, so that it never waits for the client."""

N_ROWS = 5_000
N_COMPARED_SCORES = 500
SCORE_TOLERANCE = 1e-12
"""Of two builds, which train a model each; within one build a score is the same to the bit."""

TARGETS = {
    "durable_vs_echo": (">=", 1.0),
    "durable_vs_mlflow": (">=", 50.0),
    "durability_tax_pct": ("<=", 25.0),
    "p99_vs_echo": ("<=", 3.0),
    "batch_vs_in_process": (">=", 0.5),
    "misspelt_vs_good_p99": ("<=", 1.5),
    "swaps": (">=", 200),
    "swap_failed_requests": ("<=", 0),
    "swap_mismatched_scores": ("<=", 0),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """All measured figures; `_rps` are requests per second, latencies are of one request in a closed loop."""

    n_connections: int
    echo_rps: float
    durable_rps: float
    durable_vs_echo: float
    mlflow_rps: float
    durable_vs_mlflow: float
    journal_off_rps: float
    durability_tax_pct: float
    p50_ms: float
    p99_ms: float
    echo_p50_ms: float
    echo_p99_ms: float
    p99_vs_echo: float
    failed_requests: int
    batch_rows_per_s: float
    in_process_rows_per_s: float
    batch_vs_in_process: float
    alone_p50_ms: float
    alone_p99_ms: float
    beside_good_p50_ms: float
    beside_good_p99_ms: float
    beside_misspelt_p50_ms: float
    beside_misspelt_p99_ms: float
    misspelt_vs_good_p50: float
    misspelt_vs_good_p99: float
    swaps: int
    swap_median_ms: float
    swap_answers: int
    swap_failed_requests: int
    swap_mismatched_scores: int
    rss_mb: float


def main(
    data: Annotated[Path | None, typer.Option(help="Labelled CSV; default: synthetic rows.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the outcome to this file.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Short turns and few swaps: a look, not a figure.")] = False,
    connections: Annotated[int, typer.Option(min=1, max=1_000, help="Connections of the load.")] = N_CONNECTIONS,
    against: Annotated[Path | None, typer.Option(metavar="PATH", callback=checked_checkout, help=AGAINST_HELP)] = None,
    turns: Annotated[int | None, typer.Option(min=2, max=MAX_TURNS, help=TURNS_HELP)] = None,
) -> None:
    """Measure the serving path against its peers, or with --against this build's rate against another build's.

    With --against: exit code 1 if a rate is lower (it decides nothing with --quick, or with fewer than 20 turns).
    """
    stop_in_order_on_signals()
    console = Console()
    n_turns = n_turns_of(turns, is_quick=quick, is_comparison=against is not None)
    with tempfile.TemporaryDirectory(prefix="selfheal-serving-") as name:
        Path(name).chmod(0o755)  # as root, the embedded Postgres runs as a user of its own
        if against is not None:
            builds = two_builds(against, Path(name))
            compared = compare_builds(builds, data, console, connections, n_turns=n_turns, is_quick=quick)
            conclude_comparison(compared, console, json_file)
            return
        outcome = measure(
            Path(name), data, console, connections, n_turns=2 if quick else 5, turn_seconds=2 if quick else 5
        )
    show(outcome, console)
    if json_file is not None:
        json_file.write_text(json.dumps(asdict(outcome), indent=1))


def measure(
    folder: Path, data: Path | None, console: Console, n_connections: int, *, n_turns: int, turn_seconds: float
) -> Outcome:
    """Run the whole benchmark in `folder` and return its outcome."""
    platform, dataset = prepare(folder, data, console)
    bodies = [orjson.dumps(row) for row in request_rows(dataset, platform.contract, N_ROWS)]
    try:
        with ExitStack() as servers:
            log = folder / "servers.log"
            ports = {name: free_port() for name in ("echo", "durable", "off", "mlflow")}
            ready = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
            settings = platform.settings
            console.print("Starting the servers")
            api = servers.enter_context(
                server(api_command(), f"{ready['durable']}/health", log, **api_environment(settings, ports["durable"]))
            )
            off = api_environment(settings, ports["off"], JOURNAL_FSYNC="off")
            servers.enter_context(server(api_command(), f"{ready['off']}/health", log, **off))
            echo = [sys.executable, "-m", "benchmarks.echo", str(ports["echo"])]
            servers.enter_context(server(echo, f"{ready['echo']}/ready", log))
            servers.enter_context(mlflow_server(platform, ports["mlflow"], log))
            requests = {
                "echo": [http_request("/echo", body) for body in bodies],
                "durable": [http_request("/predict", body) for body in bodies],
                "off": [http_request("/predict", body) for body in bodies],
                "mlflow": mlflow_requests(platform, bodies),
            }
            rounds = take_turns(ports, requests, n_connections, n_turns, turn_seconds, console)
            batch_rate, in_process_rate, n_batches = batches(platform, ports["durable"], bodies, n_turns, turn_seconds)
            waits = measure_waits(ports["durable"], bodies, n_turns=n_turns, seconds=turn_seconds)
            swaps = swap_under_load(
                platform, ports["durable"], bodies, n_connections, 20 if n_turns < 5 else 200, console
            )
            rss_mb = api.memory_info().rss / 1e6
            n_single = sum(turn.n_answered for name in ("durable", "off") for turn in rounds[name])
            n_answered = n_single + n_batches * BATCH_ROWS + waits.n_rows + swaps["swap_answers"]
            check_logged(platform, ports, n_answered, n_answered + swaps["swap_failed_requests"])
    finally:
        platform.close()
    turns = {name: of[1:] for name, of in rounds.items()}  # the first one warms up
    rate = {name: statistics.median(turn.requests_per_second for turn in of) for name, of in turns.items()}
    p50 = {name: statistics.median(turn.percentile_ms(50) for turn in of) for name, of in turns.items()}
    p99 = {name: statistics.median(turn.percentile_ms(99) for turn in of) for name, of in turns.items()}
    return Outcome(
        n_connections=n_connections,
        echo_rps=rate["echo"],
        durable_rps=rate["durable"],
        durable_vs_echo=rate["durable"] / rate["echo"],
        mlflow_rps=rate["mlflow"],
        durable_vs_mlflow=rate["durable"] / rate["mlflow"],
        journal_off_rps=rate["off"],
        durability_tax_pct=100 * (1 - rate["durable"] / rate["off"]),
        p50_ms=p50["durable"],
        p99_ms=p99["durable"],
        echo_p50_ms=p50["echo"],
        echo_p99_ms=p99["echo"],
        p99_vs_echo=p99["durable"] / p99["echo"],
        failed_requests=sum(turn.n_failed for of in turns.values() for turn in of),
        batch_rows_per_s=batch_rate,
        in_process_rows_per_s=in_process_rate,
        batch_vs_in_process=batch_rate / in_process_rate,
        misspelt_vs_good_p50=waits.misspelt_vs_good_p50,
        misspelt_vs_good_p99=waits.misspelt_vs_good_p99,
        **{name: value for name, value in asdict(waits).items() if name != "n_rows"},
        rss_mb=rss_mb,
        **swaps,
    )


def check_logged(platform: Platform, ports: dict[str, int], n_answered: int, n_sent: int) -> None:
    """Check that every row that was answered was made durable, and is in Postgres; and that no row is that was not sent."""
    for name in ("durable", "off"):
        wait_until_drained(ports[name])
    with platform.store.engine.connect() as connection:
        n_logged = int(connection.execute(text("SELECT count(*) FROM prediction_logs")).scalar_one())
    within("rows logged, of those that were answered", n_logged, n_answered, n_sent)


def compare_builds(
    builds: dict[Side, Build],
    data: Path | None,
    console: Console,
    n_connections: int,
    *,
    n_turns: int,
    is_quick: bool,
) -> Comparison:
    """Load the two builds in turns, `n_turns` each, with the same requests."""
    turn_seconds = 1.0 if is_quick else 5.0
    contract, dataset = labelled_rows(data, builds["new"].folder)
    rows = request_rows(dataset, contract, N_ROWS)
    for build in builds.values():
        console.print(f"Training a version with the {build.side} build, {build.revision}")
        build.bootstrap(data)
    bodies = [orjson.dumps(row) for row in rows]
    single = [http_request("/predict", body) for body in bodies]
    batch = [http_request("/predict/batch", b'{"instances":[' + b",".join(bodies[:BATCH_ROWS]) + b"]}")]
    rates: dict[Side, list[float]] = {"old": [], "new": []}
    batch_rates: dict[Side, list[float]] = {"old": [], "new": []}
    n_failed: dict[Side, int] = {"old": 0, "new": 0}
    scores: dict[Side, list[float]] = {}

    def load(side: Side, seconds: float) -> tuple[float, float]:
        one = run_load(ports[side], single, n_connections=n_connections, seconds=seconds)
        many = run_load(ports[side], batch, n_connections=BATCH_CONNECTIONS, seconds=seconds / 2)
        wait_until_drained(ports[side])  # otherwise this turn's rows would be copied while the other build is measured
        n_failed[side] += one.n_failed + many.n_failed
        at_least(f"requests that the {side} build answered in a turn", one.n_answered, 1)
        at_least(f"batches that the {side} build answered in a turn", many.n_answered, 1)
        return one.requests_per_second, many.requests_per_second * BATCH_ROWS

    with ExitStack() as databases, Progress(console=console) as progress:
        for build in builds.values():
            databases.enter_context(build.postgres())
        task = progress.add_task("Turns", total=2 * n_turns)
        for order in turn_order(n_turns):
            with ExitStack() as servers:
                ports = {side: free_port() for side in order}
                for side in order:
                    servers.enter_context(builds[side].api(ports[side]))
                for side in order:
                    scores[side] = score(ports[side], rows[:N_COMPARED_SCORES])
                    exactly(f"rows that the {side} build scored", len(scores[side]), N_COMPARED_SCORES)
                    load(side, turn_seconds / 4)  # warms up and does not count
                for side in order:
                    rate, batch_rate = load(side, turn_seconds)
                    rates[side].append(rate)
                    batch_rates[side].append(batch_rate)
                    progress.advance(task)
    difference = max(abs(old - new) for old, new in zip(scores["old"], scores["new"], strict=True))
    return Comparison(
        title="Serving, this build against the other",
        revisions={side: build.revision for side, build in builds.items()},
        measures=(
            Measure("POST /predict", "requests/s", True, tuple(rates["old"]), tuple(rates["new"])),
            Measure("POST /predict/batch", "rows/s", True, tuple(batch_rates["old"]), tuple(batch_rates["new"])),
        ),
        failures=n_failed,
        turns_are_short=is_quick,
        remarks=()
        if difference <= SCORE_TOLERANCE
        else (f"The builds' models differ: the same row's scores by up to {difference:.3g}.",),
    )


def take_turns(
    ports: dict[str, int],
    requests: dict[str, list[bytes]],
    n_connections: int,
    n_turns: int,
    turn_seconds: float,
    console: Console,
) -> dict[str, list[LoadResult]]:
    """Load each server for a turn, round after round; the first round warms them up and is not to be counted."""
    turns: dict[str, list[LoadResult]] = {name: [] for name in ports}
    with Progress(console=console) as progress:
        task = progress.add_task("Single rows", total=(n_turns + 1) * len(ports))
        for turn in range(n_turns + 1):
            for name, port in ports.items():
                seconds = turn_seconds if turn else turn_seconds / 4
                result = run_load(port, requests[name], n_connections=n_connections, seconds=seconds)
                exactly(f"requests that {name} failed on ({result.first_failure})", result.n_failed, 0)
                at_least(f"requests that {name} answered in a turn", result.n_answered, n_connections)
                turns[name].append(result)
                progress.advance(task)
    return turns


def mlflow_server(platform: Platform, port: int, log: Path) -> Any:
    """MLflow's own scoring server for the production version, with one worker."""
    from selfheal.adapters.mlflow_store import mlflow_store_uri

    version = model_versions.champion(platform.store)
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        version.artifact_uri,
        "-p",
        str(port),
        "-w",
        "1",
    ]
    return server(
        [*command, "--env-manager", "local"],
        f"http://127.0.0.1:{port}/ping",
        log,
        MLFLOW_TRACKING_URI=mlflow_store_uri(platform.settings),
    )


def mlflow_requests(platform: Platform, bodies: list[bytes]) -> list[bytes]:
    """Return the same rows as requests for MLflow: with all features, because it does not derive them."""
    rows = matrix_of(platform.contract, [orjson.loads(body) for body in bodies])
    names = list(platform.contract.feature_names)
    frames = ({"dataframe_split": {"columns": names, "data": [row]}} for row in rows.tolist())
    return [http_request("/invocations", orjson.dumps(frame)) for frame in frames]


def matrix_of(contract: ModelContract, rows: list[dict[str, Any]]) -> FloatArray:
    """Return the feature matrix of request rows."""
    inputs = np.array([[row[name] for name in contract.input_names] for row in rows], dtype=np.float64)
    return contract.matrix(dict(zip(contract.input_names, inputs.T, strict=True)))


def batches(
    platform: Platform, port: int, bodies: list[bytes], n_turns: int, seconds: float
) -> tuple[float, float, int]:
    """Return rows per second of `/predict/batch` and of this process, and the number of batches answered.

    This process does JSON -> predict_proba -> JSON. The two are measured in turns.
    """
    version = model_versions.champion(platform.store)
    pipeline = platform.registry.load(version)
    body = b'{"instances":[' + b",".join(bodies[:BATCH_ROWS]) + b"]}"

    def in_process() -> None:
        rows = json.loads(body)["instances"]
        scores = pipeline.predict_proba(matrix_of(platform.contract, rows))[:, 1]
        predictions = [
            {"prediction": int(score >= version.threshold), "probability": score, "model_version": version.version}
            for score in scores.tolist()
        ]
        json.dumps({"predictions": predictions})

    rates: tuple[list[float], list[float]] = ([], [])
    request = [http_request("/predict/batch", body)]
    json_type = {"Content-Type": "application/json"}
    reply = httpx.post(f"http://127.0.0.1:{port}/predict/batch", content=body, headers=json_type, timeout=60)
    answered = reply.raise_for_status().json()
    exactly("rows in the answer to a batch", len(answered["predictions"]), BATCH_ROWS)
    n_batches = 1
    for turn in range(n_turns + 1):
        load = run_load(port, request, n_connections=BATCH_CONNECTIONS, seconds=seconds / 2)
        exactly(f"batches that failed ({load.first_failure})", load.n_failed, 0)
        at_least("batches answered in a turn", load.n_answered, 1)
        n_batches += load.n_answered
        in_process()
        began, n_calls = time.perf_counter(), 0
        while time.perf_counter() - began < seconds / 2:
            in_process()
            n_calls += 1
        at_least("batches scored in this process in a turn", n_calls, 1)
        if turn:  # the first one warms up
            rates[0].append(load.requests_per_second * BATCH_ROWS)
            rates[1].append(n_calls * BATCH_ROWS / (time.perf_counter() - began))
    return statistics.median(rates[0]), statistics.median(rates[1]), n_batches


def _put_live(platform: Platform, version: int, replaces: int, swap: int) -> None:
    """Put a version into production as a rollback does after its checks."""
    now = datetime.now(UTC)
    decision = Decision(
        decision_id=digest_of("swap", swap, now)[:16],
        created_at=now,
        model_name=platform.contract.name,
        trigger_reason=Trigger.MANUAL.value,
        action=Action.ROLLBACK,
        reason="benchmark",
        actor="benchmark",
        champion_version=replaces,
        challenger_version=version,
    )
    model_versions.go_live(platform.store, version, replaces=replaces, decision=decision, now=now, probation_until=None)


def swap_under_load(
    platform: Platform, port: int, bodies: list[bytes], n_connections: int, n_swaps: int, console: Console
) -> dict[str, Any]:
    """Promote versions 1 and 2 alternately under load, each as soon as the other one serves."""
    is_done = threading.Event()
    waits: list[float] = []

    def promote_to_and_fro() -> None:
        try:
            with (
                httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
                Progress(console=console) as bar,
            ):
                task = bar.add_task("Swaps under load", total=n_swaps)
                for swap in range(n_swaps):
                    new, old = (2, 1) if swap % 2 == 0 else (1, 2)
                    began = time.perf_counter()
                    _put_live(platform, new, old, swap)
                    while client.get("/model/info").json()["model_version"] != new:
                        if time.perf_counter() - began > 30:
                            raise TimeoutError(f"version {new} was not served within 30 s")
                    waits.append(time.perf_counter() - began)
                    bar.advance(task)
        finally:
            is_done.set()

    thread = threading.Thread(target=promote_to_and_fro)
    thread.start()
    requests = [http_request("/predict", body) for body in bodies]
    result = run_load(
        port, requests, n_connections=n_connections, seconds=1_200, keeps_answers=True, until=is_done.is_set
    )
    thread.join()
    exactly("promotions under load", len(waits), n_swaps)
    named = Counter(orjson.loads(body)["model_version"] for _, body in result.answers)
    for version in (1, 2):
        at_least(f"answers of version {version} under load", named[version], n_swaps)
    return {
        "swaps": len(waits),
        "swap_median_ms": 1000 * statistics.median(waits) if waits else float("nan"),
        "swap_answers": result.n_answered,
        "swap_failed_requests": result.n_failed,
        "swap_mismatched_scores": mismatched(platform, bodies, result),
    }


def mismatched(platform: Platform, bodies: list[bytes], result: LoadResult) -> int:
    """Return the number of answers whose score or decision differs from that of the version they name."""
    matrix = matrix_of(platform.contract, [orjson.loads(body) for body in bodies])
    scores: dict[int, FloatArray] = {}
    thresholds: dict[int, float] = {}
    for version in model_versions.list_versions(platform.store):
        scores[version.version] = scoring_of(platform, version)(matrix)
        thresholds[version.version] = version.threshold
    at_least("rows that the two versions score differently", int((scores[1] != scores[2]).sum()), len(bodies) // 2)
    n_wrong = 0
    for position, body in result.answers:
        answer = orjson.loads(body)
        named = answer["model_version"]
        is_same = answer["probability"] == scores[named][position]
        is_right = answer["prediction"] == int(answer["probability"] >= thresholds[named])
        n_wrong += not (is_same and is_right)
    return n_wrong


def show(outcome: Outcome, console: Console) -> None:
    """Print the outcome as a table with the targets."""
    table = Table(title="Serving", title_justify="left")
    for column in ("measure", "value", "target", ""):
        table.add_column(column, justify="right" if column == "value" else "left")
    for name, value in asdict(outcome).items():
        comparison, target = TARGETS.get(name, ("", None))
        met = target is None or (value >= target if comparison == ">=" else value <= target)
        wanted = "" if target is None else f"{comparison} {target:g}"
        table.add_row(
            name, f"{value:,.4g}" if isinstance(value, float) else f"{value:,}", wanted, "" if met else "missed"
        )
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
