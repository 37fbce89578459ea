"""`POST /labels`: on disk before it is answered, all of a call or nothing, and never two truths for one prediction."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import psycopg
import pytest

from selfheal.adapters.journal import LABEL_JOURNAL, Journal
from selfheal.adapters.postgres.circuit_breaker import ConnectionBreaker
from selfheal.adapters.postgres.ingest import ingest
from selfheal.adapters.postgres.store import Store
from selfheal.settings import Settings
from serving.ingest.journal_writer import JournalWriter
from serving.ingest.labels import LabelIngest
from serving.schemas.requests import Label
from tests.serving.history import platform_of
from tests.serving.running import Api, api_in_thread, bodies, label_rows, query
from tests.waiting import eventually


def new_label(true_label: int = 1, **more: Any) -> dict[str, Any]:
    return {"prediction_id": str(uuid.uuid4()), "true_label": true_label, **more}


def stored(settings: Settings) -> dict[str, int]:
    return dict(query(settings, "SELECT prediction_id::text, true_label FROM label_store"))


def test_a_label_is_in_the_journal_when_the_answer_arrives_and_in_postgres_soon(api: Api) -> None:
    prediction = api.post("/predict", bodies(1)[0]).json()
    label = {
        "prediction_id": prediction["prediction_id"],
        "true_label": 1,
        "labelled_at": "2026-03-02T14:00:00+02:00",
        "label_source": "workshop",
    }
    answer = api.post("/labels", label)
    (line,) = label_rows(api.settings)
    assert (answer.status_code, answer.json()) == (200, {"accepted": 1, "duplicates": 0, "replaced": 0})
    assert line["prediction_id"] == prediction["prediction_id"]
    assert (line["true_label"], line["label_source"], line["is_correction"]) == ("1", "workshop", "false")
    assert line["labelled_at"] == "2026-03-02T12:00:00.000000+00:00"
    eventually(lambda: stored(api.settings) == {prediction["prediction_id"]: 1}, "the label is copied")


def test_the_same_label_again_is_a_duplicate_and_not_written_twice(api: Api) -> None:
    label = new_label()
    assert api.post("/labels", label).json() == {"accepted": 1, "duplicates": 0, "replaced": 0}
    assert api.post("/labels", label).json() == {"accepted": 0, "duplicates": 1, "replaced": 0}
    assert api.post("/labels", {"labels": [label, new_label(0)]}).json() == {
        "accepted": 1,
        "duplicates": 1,
        "replaced": 0,
    }
    assert len(label_rows(api.settings)) == 2


def test_the_same_label_twice_in_one_call_is_kept_once(api: Api) -> None:
    label = new_label()
    assert api.post("/labels", {"labels": [label, label]}).json() == {"accepted": 1, "duplicates": 1, "replaced": 0}
    assert len(label_rows(api.settings)) == 1


def test_another_label_is_a_conflict_and_nothing_of_its_call_is_kept(api: Api) -> None:
    known, other = new_label(1), new_label(0)
    api.post("/labels", known)
    answer = api.post("/labels", {"labels": [other, known | {"true_label": 0}]})
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "label_conflict"
    assert known["prediction_id"] in answer.json()["detail"]
    assert "is_correction" in answer.json()["detail"]
    assert [row["prediction_id"] for row in label_rows(api.settings)] == [known["prediction_id"]]
    assert api.post("/labels", other).json() == {"accepted": 1, "duplicates": 0, "replaced": 0}


def test_a_call_that_contradicts_itself_is_a_conflict(api: Api) -> None:
    label = new_label(1)
    assert api.post("/labels", {"labels": [label, label | {"true_label": 0}]}).status_code == 409
    assert label_rows(api.settings) == []


def test_a_correction_that_another_process_took_overrules_what_this_one_remembers(api: Api, tmp_path: Path) -> None:
    label = new_label(0)
    correction = label | {"true_label": 1, "is_correction": True}
    api.post("/labels", label)
    eventually(lambda: stored(api.settings), "the label is copied")
    with api_in_thread(api.settings.model_copy(update={"data_dir": other_host(api.settings, tmp_path)})) as other:
        assert other.post("/labels", correction).json() == {"accepted": 1, "duplicates": 0, "replaced": 1}
        eventually(lambda: stored(api.settings) == {label["prediction_id"]: 1}, "the correction is copied")
    assert api.post("/labels", label | {"true_label": 1}).json() == {"accepted": 0, "duplicates": 1, "replaced": 0}
    assert api.post("/labels", label).status_code == 409


def other_host(settings: Settings, tmp_path: Path) -> Path:
    """A DATA_DIR with the model and nothing of the journal."""
    return Path(shutil.copytree(settings.data_dir, tmp_path / "other", ignore=shutil.ignore_patterns("audit")))


def test_a_label_that_only_postgres_remembers_conflicts_too(api_settings: Settings) -> None:
    label = new_label(1)
    with api_in_thread(api_settings) as api:
        api.post("/labels", label)
    with api_in_thread(api_settings) as restarted:
        assert restarted.post("/labels", label | {"true_label": 0}).status_code == 409
        assert restarted.post("/labels", label).json() == {"accepted": 0, "duplicates": 1, "replaced": 0}


def test_a_correction_replaces_the_label_and_stays_in_the_journal(api: Api) -> None:
    label = new_label(1)
    api.post("/labels", label)
    corrected = api.post("/labels", label | {"true_label": 0, "is_correction": True})
    assert corrected.json() == {"accepted": 1, "duplicates": 0, "replaced": 1}
    eventually(lambda: stored(api.settings) == {label["prediction_id"]: 0}, "the correction is copied")
    assert [(row["true_label"], row["is_correction"]) for row in label_rows(api.settings)] == [
        ("1", "false"),
        ("0", "true"),
    ]
    assert api.post("/labels", label).status_code == 409, "the corrected value counts now"


def test_a_label_that_replaces_nothing_is_a_first_label_whatever_it_is_called(api: Api) -> None:
    first, again = new_label(1, is_correction=True), new_label(0, is_correction=True)
    assert api.post("/labels", {"labels": [first, again]}).json() == {"accepted": 2, "duplicates": 0, "replaced": 0}
    eventually(lambda: len(stored(api.settings)) == 2, "the labels are copied")
    assert api.post("/labels", {"labels": [first, again | {"true_label": 1}]}).json() == {
        "accepted": 1,
        "duplicates": 1,
        "replaced": 1,
    }
    changed = "SELECT first_label FROM label_store WHERE first_label <> true_label"
    eventually(lambda: query(api.settings, changed) == [(0,)], "the replaced value is known")


def test_what_a_correction_replaced_is_unknown_while_postgres_is_away(api_settings: Settings, tmp_path: Path) -> None:
    sent = Label(prediction_id=uuid.uuid4(), true_label=1, is_correction=True)
    other = sent.model_copy(update={"prediction_id": uuid.uuid4(), "is_correction": False})
    with platform_of(api_settings) as platform:
        away = replace(platform.store, breaker=ConnectionBreaker())
        with host(away, tmp_path) as taking:
            assert taking.receive([other]) == (1, 0, 0)
            assert taking.receive([sent]) == (1, 0, None)
            assert taking.receive([sent.model_copy(update={"true_label": 0})]) == (1, 0, 1), "this one is remembered"


def test_an_early_label_for_an_unknown_prediction_is_accepted(api: Api) -> None:
    label = new_label()
    assert api.post("/labels", label).json() == {"accepted": 1, "duplicates": 0, "replaced": 0}
    eventually(lambda: stored(api.settings) == {label["prediction_id"]: 1}, "the label is copied")


def test_a_postgres_that_hangs_holds_labels_up_for_a_moment_and_nothing_else(api: Api) -> None:
    """Far more calls than there are threads."""
    url = api.settings.external_database_url(api.settings.mlops_db_name)
    labels = [new_label() for _ in range(20)]
    with psycopg.connect(url) as connection, ThreadPoolExecutor(20) as clients:
        connection.execute("LOCK TABLE label_store IN ACCESS EXCLUSIVE MODE")
        waiting = [clients.submit(api.post, "/labels", label) for label in labels]
        assert api.post("/predict?explain=true", bodies(1)[0]).status_code == 200
        assert [one.result().status_code for one in waiting] == [200] * 20
        assert api.post("/labels", labels[0] | {"true_label": 0}).status_code == 409, "this one is remembered"
    eventually(lambda: len(stored(api.settings)) == 20, "the labels are copied")


def test_of_contradicting_labels_sent_at_once_exactly_one_wins(api: Api) -> None:
    label = new_label()
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda i: api.post("/labels", label | {"true_label": i % 2}).status_code, range(16)))
    (line,) = label_rows(api.settings)
    assert answers.count(200) == 8, "the first one and its duplicates"
    assert answers.count(409) == 8
    eventually(
        lambda: stored(api.settings) == {label["prediction_id"]: int(line["true_label"])}, "the winner is copied"
    )


# Clocks


class _WallClock(datetime):
    """The wall clock of the process that takes a label."""

    ahead = timedelta()

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) + cls.ahead


TWO_DAYS = timedelta(days=2)


@contextmanager
def host(store: Store, data_dir: Path) -> Iterator[LabelIngest]:
    """A process that takes labels into a folder of its own."""
    journal = Journal(LABEL_JOURNAL, data_dir, 1_000_000, "off")
    ingest = LabelIngest(store, JournalWriter(journal, 60))
    yield ingest
    ingest.close()
    journal.close()


def correct(host: LabelIngest, prediction_id: uuid.UUID, value: int, ahead: timedelta) -> None:
    """Send a correction to a host whose wall clock is wrong by that."""
    _WallClock.ahead = ahead
    sent = Label(prediction_id=prediction_id, true_label=value, is_correction=True)
    assert host.accept([sent]) == (1, 0), "it is acknowledged"


@pytest.mark.parametrize("is_copied_between", [True, False])
@pytest.mark.parametrize("wrong_by", [TWO_DAYS, -TWO_DAYS])
@pytest.mark.parametrize("n_hosts", [1, 2])
def test_the_correction_acknowledged_last_counts_whatever_the_clocks_say(
    api_settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    n_hosts: int,
    wrong_by: timedelta,
    is_copied_between: bool,
) -> None:
    """One host whose clock is set, or two that differ."""
    monkeypatch.setattr("serving.ingest.labels.datetime", _WallClock)
    folders = [tmp_path / str(number) for number in range(n_hosts)]
    prediction_id = uuid.uuid4()
    with platform_of(api_settings) as platform, ExitStack() as hosts:
        taking = [hosts.enter_context(host(platform.store, folder)) for folder in folders]
        story = ((1, wrong_by), (0, timedelta()), (1, wrong_by), (0, timedelta()))
        for number, (value, ahead) in enumerate(story):
            correct(taking[number % n_hosts], prediction_id, value, ahead)
            if is_copied_between:
                copy_all(platform.store, folders)
        copy_all(platform.store, folders)
        assert stored(api_settings) == {str(prediction_id): 0}
        query(api_settings, "TRUNCATE label_store, journal_positions")
        copy_all(platform.store, reversed(folders))
        assert stored(api_settings) == {str(prediction_id): 0}, "a replay in another order gives the same"


def copy_all(store: Store, folders: Iterable[Path]) -> None:
    for folder in folders:
        ingest(store, LABEL_JOURNAL, folder)


def test_a_correction_after_a_restart_without_postgres_counts_though_the_clock_was_set_back(
    api_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.ingest.labels.datetime", _WallClock)
    monkeypatch.setattr("selfheal.kit.steady_clock.datetime", _WallClock)
    prediction_id = uuid.uuid4()
    with platform_of(api_settings) as platform:
        away = replace(platform.store, breaker=ConnectionBreaker())  # which lets nobody through
        for value, ahead in ((1, TWO_DAYS), (0, timedelta())):
            _WallClock.ahead = ahead
            with host(away, tmp_path) as taking:
                taking.remember_journal(tmp_path)
                correct(taking, prediction_id, value, ahead)
        ingest(platform.store, LABEL_JOURNAL, tmp_path)
    assert stored(api_settings) == {str(prediction_id): 0}
