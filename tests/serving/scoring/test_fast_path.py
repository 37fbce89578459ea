"""The fast path: what a scoring request is answered when something is wrong on our side, and that it is counted."""

from __future__ import annotations

import json
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx
import numpy as np
import pytest

from selfheal.domain.contract import FloatArray
from selfheal.settings import Settings
from serving.champion.holder import Champion
from serving.schemas.reading import MAX_ERRORS_PER_LIST, ObjectReader
from serving.scoring.fast_path import FastPath
from serving.scoring.http_fast_path import FastPathProtocol
from serving.security.http_protocol import StrictHttpProtocol
from tests.at_once import at_once
from tests.serving.blocking import SlowDisk, slow_disk, wait_for_rows
from tests.serving.running import TIMEOUT_SECONDS, Api, api_in_thread, bodies, journal_rows
from tests.serving.scoring.test_explanations import holder_of
from tests.waiting import eventually

POISON = 4.75
WAYS = {"shortcut": FastPathProtocol, "plain": StrictHttpProtocol}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Any:
    """uvicorn's `http` option."""
    return WAYS[request.param]


def n_refused(api: Api) -> Counter[str]:
    assert api.app is not None
    counted: Counter[str] = api.app.middleware_stack.n_refused  # type: ignore[union-attr]
    return counted.copy()


def poison(champion: Champion) -> Champion:
    """The same model, which now fails on a row with the poison."""

    def probabilities(matrix: FloatArray) -> FloatArray:
        if (matrix == POISON).any():
            raise FloatingPointError("secret of the model")
        return champion.probabilities(matrix)

    return Champion(champion.version, champion.pipeline, probabilities)


def release_when_waiting(api: Api, disk: SlowDisk, n_rows: int) -> Any:
    wait_for_rows(api, n_rows)
    disk.release()


def test_a_request_that_the_model_fails_on_is_a_500_of_its_own(
    api_settings: Settings, way: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bad = bodies(1)[0] | {"load_ratio": POISON}
    with api_in_thread(api_settings, http=way) as api:
        holder = holder_of(api)
        assert holder.current is not None
        holder.current = poison(holder.current)
        requests: list[Callable[[], Any]] = [partial(api.post, "/predict", row) for row in bodies(6)]
        requests.insert(2, partial(api.post, "/predict", bad))
        requests.insert(5, partial(api.post, "/predict/batch", {"instances": [bad, *bodies(2)]}))
        with slow_disk(monkeypatch) as disk, ThreadPoolExecutor(1) as beside:
            first = beside.submit(api.post, "/predict", bodies(1)[0])
            disk.wait_for_write()
            *answers, _ = at_once([*requests, partial(release_when_waiting, api, disk, 1 + 7 + 3)])
        assert first.result().status_code == 200
        assert [answer.status_code for answer in answers] == [200, 200, 500, 200, 200, 500, 200, 200]
        for failed in (answers[2], answers[5]):
            assert failed.headers["content-type"] == "application/problem+json"
            assert failed.json()["type"] == "internal_error"
            assert "secret" not in failed.text
        assert n_refused(api) == {"internal_error": 2}
        assert len(journal_rows(api.settings)) == 7, "the first and the six good rows"
        assert api.post("/predict", bodies(1)[0]).status_code == 200
    assert caplog.text.count("FloatingPointError: secret of the model") >= 2


def test_when_too_much_waits_a_client_is_told_to_come_back(
    api_settings: Settings, way: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.scoring.micro_batcher.MAX_WAITING_ROWS", 3)
    with api_in_thread(api_settings, http=way) as api:
        with slow_disk(monkeypatch) as disk:

            def refused() -> list[httpx.Response]:
                wait_for_rows(api, 3)
                told = [api.post("/predict", bodies(1)[0]), api.post("/predict/batch", {"instances": bodies(4)})]
                disk.release()
                return told

            waiting: list[Callable[[], Any]] = [partial(api.post, "/predict", row) for row in bodies(3)]
            *answers, told = at_once([*waiting, refused])
        assert [answer.status_code for answer in answers] == [200] * 3
        for answer in told:
            assert (answer.status_code, answer.json()["type"]) == (503, "overloaded")
            assert int(answer.headers["retry-after"]) >= 1
        assert n_refused(api) == {"overloaded": 2}
        assert api.post("/predict", bodies(1)[0]).status_code == 200
        assert len(journal_rows(api.settings)) == 4


def test_refusals_are_counted_by_kind_and_once(api_settings: Settings, way: Any) -> None:
    with api_in_thread(api_settings, http=way) as api:
        for _ in range(3):
            api.post("/predict", {"colour": "red"})
        api.post("/predict?colour=red", bodies(1)[0])
        api.client.post("/predict", content=b"{}")
        api.post("/predict/batch", {"instances": []})
        api.client.post("/predict/batch", content=b"[", headers={"Content-Type": "application/json"})
        assert n_refused(api) == {"invalid_request": 6, "unsupported_media_type": 1}
        api.post("/predict/batch", {"instances": [{"colour": "red"}]})
        assert sum(n_refused(api).values()) == 7, "a batch that is answered is not refused"


def test_a_probability_is_sent_with_its_last_bit(shared_api: Api) -> None:
    answers = [shared_api.post("/predict", row).json() for row in bodies(20)]
    logged = {row["prediction_id"]: row["probability"] for row in journal_rows(shared_api.settings)}
    for answer in answers:
        assert np.float64(logged[answer["prediction_id"]]) == answer["probability"]


# Large bodies


def large_batch(n_rows: int = 5_000) -> dict[str, Any]:
    return {"instances": bodies(n_rows)}


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> Iterator[ReadPieces]:
    """Every piece of a list that is read from now on waits until it may be."""
    reads = ReadPieces()
    many = ObjectReader.many

    def slowly(reader: ObjectReader[Any], name: str, body: bytes, max_items: int) -> Iterator[Any]:
        for piece in many(reader, name, body, max_items):
            reads.note(body)
            yield piece

    monkeypatch.setattr(ObjectReader, "many", slowly)
    yield reads
    reads.may_go_on.set()


class ReadPieces:
    """Of which body each piece was, in the order in which they were read."""

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self.may_go_on = threading.Event()

    def note(self, body: bytes) -> None:
        self.lengths.append(len(body))
        assert self.may_go_on.wait(TIMEOUT_SECONDS)


@pytest.mark.parametrize("path", ["/predict/batch", "/labels"])
def test_while_a_large_body_is_read_others_are_answered(shared_api: Api, pieces: ReadPieces, path: str) -> None:
    labels = [{"prediction_id": str(uuid.uuid4()), "true_label": 1} for _ in range(5_000)]
    with ThreadPoolExecutor(1) as beside:
        large = beside.submit(shared_api.post, path, large_batch() if path == "/predict/batch" else {"labels": labels})
        eventually(lambda: pieces.lengths, "the large body is being read")
        assert shared_api.post("/predict", bodies(1)[0]).status_code == 200
        assert not large.done()
        pieces.may_go_on.set()
        assert large.result().status_code == 200
    assert len(pieces.lengths) > 2


def test_large_bodies_that_arrive_together_are_read_in_turns(
    shared_api: Api, pieces: ReadPieces, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    beside_the_loop = FastPath._beside

    async def watched(fast_path: FastPath, work: Callable[..., Any], *arguments: Any) -> Any:
        asked.append(work)
        return await beside_the_loop(fast_path, work, *arguments)

    monkeypatch.setattr(FastPath, "_beside", watched)
    with ThreadPoolExecutor(2) as beside:
        answers = [beside.submit(shared_api.post, "/predict/batch", large_batch(n_rows)) for n_rows in (5_000, 9_000)]
        eventually(lambda: len(asked) == 2, "both wait to be read")
        pieces.may_go_on.set()
        assert [answer.result().status_code for answer in answers] == [200, 200]
    small = min(pieces.lengths)
    last_of_small = max(n for n, length in enumerate(pieces.lengths) if length == small)
    n_of_large_before = sum(length != small for length in pieces.lengths[:last_of_small])
    assert abs(n_of_large_before - pieces.lengths.count(small)) <= 2, pieces.lengths


def test_a_batch_of_misspelt_rows_is_answered_by_less_than_it_says_itself(shared_api: Api) -> None:
    misspelt = {"instances": [{"x" + name: value for name, value in row.items()} for row in bodies(10_000)]}
    answer = shared_api.post("/predict/batch", misspelt)
    found = answer.json()
    assert found["predictions"] == [None] * 10_000
    assert found["n_refused"] == 10_000
    assert len(found["errors"]) == MAX_ERRORS_PER_LIST
    assert found["errors"][0]["row"] == 0
    assert len(answer.content) < len(json.dumps(misspelt)) / 2
    some = shared_api.post("/predict/batch", {"instances": [*bodies(2), {}, *bodies(1)]}).json()
    assert some["n_refused"] == 1
    assert {error["row"] for error in some["errors"]} == {2}
