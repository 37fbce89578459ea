"""`/monitoring/label-quarantines`: withheld labels are listed, and released by the word of a key, with its name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from selfheal.domain.records import LabelQuarantine
from selfheal.settings import Settings
from tests.serving.history import ADA, API_KEYS, READER, platform_of
from tests.serving.running import Api, api_in_thread
from tests.serving.schemas.test_problems import assert_problem
from tests.times import T0

PATH = "/monitoring/label-quarantines"
WORD = {"reason": "the sender was right"}


@pytest.fixture
def api(two_versions: Settings) -> Iterator[Api]:
    with platform_of(two_versions) as platform:
        platform.traffic.record_label_quarantine(LabelQuarantine("ab12", 1, T0, ("inverted",), is_exchanged=True))
    with api_in_thread(two_versions.model_copy(update={"api_keys": SecretStr(API_KEYS)})) as running:
        running.client.headers["X-API-Key"] = ADA
        yield running


def test_withheld_labels_are_listed_and_released_once_by_name(api: Api) -> None:
    (listed,) = api.client.get(PATH).json()["quarantines"]
    assert (listed["quarantine_id"], listed["is_open"], listed["released_by"]) == ("ab12", True, None)
    assert listed["reasons"] == ["inverted"]
    assert_problem(api.post(f"{PATH}/ff00/release", WORD), 404)
    assert_problem(api.post(f"{PATH}/ab12/release", {"reason": " "}), 422)
    released = api.post(f"{PATH}/ab12/release", WORD)
    assert released.status_code == 200, released.text
    assert (released.json()["released_by"], released.json()["is_open"]) == ("ada", False)
    assert_problem(api.post(f"{PATH}/ab12/release", WORD), 409)
    decided = api.client.get("/decisions", params={"limit": 1}).json()["decisions"][0]
    assert (decided["action"], decided["actor"]) == ("release_labels", "ada")


def test_a_reader_may_look_and_not_release(api: Api) -> None:
    api.client.headers["X-API-Key"] = READER
    assert api.client.get(PATH).status_code == 200
    assert_problem(api.post(f"{PATH}/ab12/release", WORD), 403)
