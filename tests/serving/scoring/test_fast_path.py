"""The fast path: what a scoring request is answered when something is wrong on our side, and that it is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx
import numpy as np
import pytest

from selfheal.domain.contract import FloatArray
from selfheal.settings import Settings
from serving.champion.holder import Champion
from serving.scoring.http_fast_path import FastPathProtocol
from serving.security.http_protocol import StrictHttpProtocol
from tests.at_once import at_once
from tests.serving.blocking import SlowDisk, slow_disk, wait_for_rows
from tests.serving.running import Api, api_in_thread, bodies, journal_rows
from tests.serving.scoring.test_explanations import holder_of

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
