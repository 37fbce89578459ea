"""Single rows beside batches: the batches it sends are what it says, and it ends with an error if they are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict

import httpx
import orjson
import pytest

from benchmarks import beside_batches
from benchmarks.beside_batches import Waits, measure_waits
from benchmarks.measured import MeasuredOtherwiseError
from selfheal.settings import Settings
from tests.serving.running import Api, api_in_thread, bodies

ROWS = [orjson.dumps(row) for row in bodies(50)]


@pytest.fixture
def api(make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.setattr(beside_batches, "MIN_ROWS_PER_TURN", 5)  # short turns, on a busy machine
    with api_in_thread(make_settings()) as running:
        yield running


def waits_of(api: Api) -> Waits:
    port = httpx.URL(api.client.base_url).port
    assert port is not None
    return measure_waits(port, ROWS, n_turns=1, seconds=0.3, n_batch_rows=300)


def test_the_waits_are_of_rows_that_were_answered_beside_batches_that_were(api: Api) -> None:
    waits = waits_of(api)
    assert min(asdict(waits).values()) > 0
    assert waits.n_rows >= 6 * 5 + 2 * 300, "at least five rows in each turn, and a batch in those with good ones"
    assert waits.misspelt_vs_good_p99 == waits.beside_misspelt_p99_ms / waits.beside_good_p99_ms


def test_misspelt_batches_that_are_scored_are_no_measurement(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside_batches, "_misspelt", lambda row: row)
    with pytest.raises(MeasuredOtherwiseError, match="rows of a batch that were refused, misspelt: 0, not 300"):
        waits_of(api)
