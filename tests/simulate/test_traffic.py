"""Rules of simulated traffic: every row is sent once and in order, its label follows, and failures are counted."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from selfheal.adapters.datasets import load_dataset
from selfheal.domain.contract import CALM, TRUE_LABEL
from selfheal.kit.errors import ConfigurationError
from selfheal.settings import Settings
from selfheal.simulate.demo import free_ports
from selfheal.simulate.session import send_scenario
from selfheal.simulate.traffic import TrafficStats, request_bodies, traffic_to
from tests.serving.running import Api, api_in_thread, query
from tests.toy_use_case import contract
from tests.waiting import eventually

FAST = 2_000.0


def toy_rows(n_rows: int) -> pd.DataFrame:
    return contract.synthesize(n_rows, 5)


# Rows as requests


def test_a_body_holds_the_inputs_as_the_contract_has_them_and_survives_json() -> None:
    rows = pd.DataFrame(
        {"temperature_c": [60.25, np.nan], "load_ratio": [0.1 + 0.2, 1.0], "restarts": [2.0, 0.0], TRUE_LABEL: [1, 0]}
    )
    found = request_bodies(rows, contract)
    assert found == [
        ({"temperature_c": 60.25, "load_ratio": 0.1 + 0.2, "restarts": 2}, 1),
        ({"temperature_c": None, "load_ratio": 1.0, "restarts": 0}, 0),
    ]
    assert all(isinstance(body["restarts"], int) for body, _ in found)
    assert json.loads(json.dumps(found[0][0], allow_nan=False)) == found[0][0]


def test_the_label_is_never_part_of_a_body() -> None:
    assert all(set(body) == set(contract.input_names) for body, _ in request_bodies(toy_rows(20), contract))


# Rows of a scenario


# Against the real API


@pytest.fixture
def api(make_settings: Callable[..., Settings]) -> Iterator[Api]:
    with api_in_thread(make_settings(ingest_interval_seconds=0.05)) as running:
        yield running


def address(api: Api) -> str:
    return str(api.client.base_url)


def stored(settings: Settings) -> list[tuple[float, int]]:
    """Load ratio and label of each stored prediction, by age; predictions without a label are left out."""
    return query(
        settings,
        "SELECT p.load_ratio, l.true_label FROM prediction_logs p JOIN label_store l USING (prediction_id) "
        "ORDER BY p.created_at, p.prediction_id",
    )


def test_every_row_arrives_once_with_its_own_label(api: Api) -> None:
    rows = toy_rows(150)

    async def run() -> TrafficStats:
        async with traffic_to(address(api), rate_per_second=FAST, label_delay_seconds=0.0, source="here") as sender:
            assert await sender.send(rows, contract) == 150
            await sender.deliver_all_labels()
            return sender.stats

    stats = asyncio.run(run())
    assert (stats.predictions, stats.labels, stats.failed_requests) == (150, 150, 0)
    assert stats.first_failure is None
    found = eventually(lambda: len(stored(api.settings)) == 150 and stored(api.settings), "150 rows in Postgres")
    assert sorted(found) == sorted(zip(rows["load_ratio"], rows[TRUE_LABEL], strict=True))
    sources = query(api.settings, "SELECT DISTINCT request_source FROM prediction_logs")
    assert sources == [("here",)]


def test_labels_are_kept_back_until_they_are_due(api: Api) -> None:
    async def run() -> tuple[int, int]:
        async with traffic_to(address(api), rate_per_second=FAST, label_delay_seconds=3_600.0, source="x") as sender:
            await sender.send(toy_rows(10), contract)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.3):  # it never ends by itself
                    await sender.deliver_labels()
            before = sender.stats.labels
            await sender.deliver_all_labels()
            return before, sender.stats.labels

    assert asyncio.run(run()) == (0, 10)


def test_labels_that_are_due_are_delivered_while_the_context_is_open(api: Api) -> None:
    async def run() -> int:
        async with traffic_to(address(api), rate_per_second=FAST, label_delay_seconds=0.0, source="x") as sender:
            await sender.send(toy_rows(10), contract)
            async with asyncio.timeout(30):
                while sender.stats.labels < 10:
                    await asyncio.sleep(0.02)
            return sender.stats.labels

    assert asyncio.run(run()) == 10


def test_sending_stops_when_told_and_what_was_begun_is_answered(api: Api) -> None:
    async def run() -> tuple[int, TrafficStats]:
        stop = asyncio.Event()
        async with traffic_to(address(api), rate_per_second=FAST, label_delay_seconds=0.0, source="x") as sender:

            async def stop_after_ten() -> None:
                while sender.stats.predictions < 10:
                    await asyncio.sleep(0)
                stop.set()

            watcher = asyncio.create_task(stop_after_ten())
            begun = await sender.send(toy_rows(1_000), contract, stop=stop)
            await watcher
            return begun, sender.stats

    begun, stats = asyncio.run(run())
    assert 10 <= begun < 1_000
    assert stats.predictions == begun


def test_a_refused_request_is_counted_and_the_first_one_is_told(api: Api) -> None:
    async def run() -> TrafficStats:
        async with traffic_to(address(api), rate_per_second=FAST, label_delay_seconds=0.0, source="x") as sender:
            rows = toy_rows(3)
            rows.loc[1, "load_ratio"] = 99.0
            await sender.send(rows, contract)
            return sender.stats

    stats = asyncio.run(run())
    assert (stats.predictions, stats.failed_requests) == (2, 1)
    assert stats.first_failure is not None
    assert stats.first_failure.startswith("POST /predict: 422 ")
    assert "load_ratio" in stats.first_failure


def test_without_an_api_every_request_fails_and_none_is_lost_count_of() -> None:
    async def run() -> TrafficStats:
        url = f"http://127.0.0.1:{free_ports(1)[0]}"
        async with traffic_to(url, rate_per_second=FAST, label_delay_seconds=0.0, source="x") as sender:
            await sender.send(toy_rows(20), contract)
            return sender.stats

    stats = asyncio.run(run())
    assert (stats.predictions, stats.failed_requests, stats.labels) == (0, 20, 0)
    assert stats.first_failure is not None
    assert stats.first_failure.startswith("POST /predict: ConnectError")


def test_a_session_goes_round_the_data_set_from_where_it_is_told(api: Api) -> None:
    console = Console(file=io.StringIO(), width=200)
    frame = load_dataset(api.settings, contract, all_rows=True).frame

    def session(start: int) -> TrafficStats:
        return asyncio.run(
            send_scenario(
                api.settings,
                address(api),
                CALM,
                n_rows=30,
                rate_per_second=FAST,
                label_delay_seconds=0.0,
                start=start,
                seed=1,
                console=console,
            )
        )

    with pytest.raises(ConfigurationError, match="--start 3000 is beyond the data set's 3,000 rows"):
        session(3_000)
    stats = session(2_990)
    assert (stats.predictions, stats.labels, stats.failed_requests) == (30, 30, 0)
    found = eventually(lambda: len(stored(api.settings)) == 30 and stored(api.settings), "30 rows in Postgres")
    expected = [*frame["load_ratio"].iloc[2_990:], *frame["load_ratio"].iloc[:20]]
    assert sorted(load for load, _ in found) == sorted(expected)
    assert "Sending 30 of 3,000 SYNTHETIC stand-in rows" in console.file.getvalue()  # type: ignore[attr-defined]
