"""How long do single rows wait beside the largest batches, good ones and such whose fields are all misspelt?

A part of `benchmarks.serving`. A few connections send single rows, so that the machine has room and what is measured is the wait
for somebody else's work; one connection sends batches at the same time. The three states (alone, beside good batches, beside
misspelt ones) take turns.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import orjson

from benchmarks.load import LoadResult, http_request, run_load
from benchmarks.measured import at_least, exactly
from serving.schemas.requests import MAX_BATCH_ROWS

N_CONNECTIONS = 8
MAX_SECONDS = 600.0
MIN_ROWS_PER_TURN = 100
"""Of fewer there is no 99th percentile."""


@dataclass(frozen=True, slots=True)
class Waits:
    """Latencies of single rows alone, beside good batches and beside misspelt ones; `n_rows` were answered in all."""

    alone_p50_ms: float
    alone_p99_ms: float
    beside_good_p50_ms: float
    beside_good_p99_ms: float
    beside_misspelt_p50_ms: float
    beside_misspelt_p99_ms: float
    n_rows: int

    @property
    def misspelt_vs_good_p50(self) -> float:
        """How many times as long as beside good batches half of the rows wait at most."""
        return self.beside_misspelt_p50_ms / self.beside_good_p50_ms

    @property
    def misspelt_vs_good_p99(self) -> float:
        """How many times as long as beside good batches 99 of 100 rows wait at most."""
        return self.beside_misspelt_p99_ms / self.beside_good_p99_ms


def measure_waits(
    port: int, bodies: Sequence[bytes], *, n_turns: int, seconds: float, n_batch_rows: int = MAX_BATCH_ROWS
) -> Waits:
    """Load the API in `n_turns` turns of `seconds` for each state, after one that warms up."""
    singles = [http_request("/predict", body) for body in bodies]
    rows = [bodies[n % len(bodies)] for n in range(n_batch_rows)]
    batches = {"good": _batch(rows), "misspelt": _batch([_misspelt(row) for row in rows])}
    n_rows = 0
    turns: dict[str, list[LoadResult]] = {"alone": [], "good": [], "misspelt": []}
    for _ in range(n_turns + 1):
        for state, of_state in turns.items():
            with _sending(port, batches.get(state)) as answers:
                result = run_load(port, singles, n_connections=N_CONNECTIONS, seconds=seconds)
            exactly(f"single rows that failed, {state} ({result.first_failure})", result.n_failed, 0)
            at_least(f"single rows answered in a turn, {state}", result.n_answered, MIN_ROWS_PER_TURN)
            n_rows += result.n_answered + _n_scored(state, answers, n_batch_rows)
            of_state.append(result)

    def median_ms(state: str, percent: float) -> float:
        return statistics.median(turn.percentile_ms(percent) for turn in turns[state][1:])

    return Waits(
        alone_p50_ms=median_ms("alone", 50),
        alone_p99_ms=median_ms("alone", 99),
        beside_good_p50_ms=median_ms("good", 50),
        beside_good_p99_ms=median_ms("good", 99),
        beside_misspelt_p50_ms=median_ms("misspelt", 50),
        beside_misspelt_p99_ms=median_ms("misspelt", 99),
        n_rows=n_rows,
    )


def _batch(rows: Sequence[bytes]) -> bytes:
    return http_request("/predict/batch", b'{"instances":[' + b",".join(rows) + b"]}")


def _misspelt(row: bytes) -> bytes:
    return orjson.dumps({f"x{name}": value for name, value in orjson.loads(row).items()})


@contextmanager
def _sending(port: int, batch: bytes | None) -> Iterator[list[bytes]]:
    """Send the batch again and again while open; yield a list that has the answers afterwards."""
    answers: list[bytes] = []
    if batch is None:
        yield answers
        return
    results: list[LoadResult] = []
    is_over = threading.Event()

    def send() -> None:
        results.append(
            run_load(port, [batch], n_connections=1, seconds=MAX_SECONDS, keeps_answers=True, until=is_over.is_set)
        )

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield answers
    finally:
        is_over.set()
        thread.join()
    (result,) = results
    exactly(f"batches that failed ({result.first_failure})", result.n_failed, 0)
    at_least("batches answered in a turn", result.n_answered, 1)
    answers += [body for _, body in result.answers]


def _n_scored(state: str, answers: Sequence[bytes], n_batch_rows: int) -> int:
    """Return how many rows of batches were scored: all of a good one, none of a misspelt one."""
    n_refused = n_batch_rows if state == "misspelt" else 0
    for body in answers:
        answer = orjson.loads(body)
        exactly(f"rows of a batch that were refused, {state}", answer["n_refused"], n_refused)
        exactly(f"rows of a batch that were answered, {state}", len(answer["predictions"]), n_batch_rows)
    return len(answers) * (n_batch_rows - n_refused)
