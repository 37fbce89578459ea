"""`POST /labels`: on disk before it is answered, all of a call or nothing, and never two truths for one prediction."""

from __future__ import annotations

import shutil
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg

from selfheal.settings import Settings
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
    assert (answer.status_code, answer.json()) == (200, {"accepted": 1, "duplicates": 0})
    assert line["prediction_id"] == prediction["prediction_id"]
    assert (line["true_label"], line["label_source"], line["is_correction"]) == ("1", "workshop", "false")
    assert line["labelled_at"] == "2026-03-02T12:00:00.000000+00:00"
    eventually(lambda: stored(api.settings) == {prediction["prediction_id"]: 1}, "the label is copied")


def test_the_same_label_again_is_a_duplicate_and_not_written_twice(api: Api) -> None:
    label = new_label()
    assert api.post("/labels", label).json() == {"accepted": 1, "duplicates": 0}
    assert api.post("/labels", label).json() == {"accepted": 0, "duplicates": 1}
    assert api.post("/labels", {"labels": [label, new_label(0)]}).json() == {"accepted": 1, "duplicates": 1}
    assert len(label_rows(api.settings)) == 2


def test_the_same_label_twice_in_one_call_is_kept_once(api: Api) -> None:
    label = new_label()
    assert api.post("/labels", {"labels": [label, label]}).json() == {"accepted": 1, "duplicates": 1}
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
    assert api.post("/labels", other).json() == {"accepted": 1, "duplicates": 0}


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
        assert other.post("/labels", correction).json() == {"accepted": 1, "duplicates": 0}
        eventually(lambda: stored(api.settings) == {label["prediction_id"]: 1}, "the correction is copied")
    assert api.post("/labels", label | {"true_label": 1}).json() == {"accepted": 0, "duplicates": 1}
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
        assert restarted.post("/labels", label).json() == {"accepted": 0, "duplicates": 1}


def test_a_correction_replaces_the_label_and_stays_in_the_journal(api: Api) -> None:
    label = new_label(1)
    api.post("/labels", label)
    corrected = api.post("/labels", label | {"true_label": 0, "is_correction": True})
    assert corrected.json() == {"accepted": 1, "duplicates": 0}
    eventually(lambda: stored(api.settings) == {label["prediction_id"]: 0}, "the correction is copied")
    assert [(row["true_label"], row["is_correction"]) for row in label_rows(api.settings)] == [
        ("1", "false"),
        ("0", "true"),
    ]
    assert api.post("/labels", label).status_code == 409, "the corrected value counts now"


def test_an_early_label_for_an_unknown_prediction_is_accepted(api: Api) -> None:
    label = new_label()
    assert api.post("/labels", label).json() == {"accepted": 1, "duplicates": 0}
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
