"""`GET /decisions`: the chain of decisions, page by page and one by one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.serving.running import Api, query
from tests.serving.schemas.test_problems import assert_problem


def ids(answer: Any) -> list[str]:
    return [decision["decision_id"] for decision in answer["decisions"]]


def pages(api: Api, **question: Any) -> list[list[str]]:
    """The decisions of all pages, until the last says that it is."""
    found: list[list[str]] = []
    while True:
        answer = api.client.get("/decisions", params=question)
        assert answer.status_code == 200, answer.text
        found.append(ids(answer.json()))
        if answer.json()["next_before"] is None:
            return found
        question["before"] = answer.json()["next_before"]


def test_pages_join_to_the_whole_chain_newest_first(watched_api: Api) -> None:
    stored = query(watched_api.settings, "SELECT decision_id FROM retraining_decisions ORDER BY position DESC")
    whole = [decision_id for (decision_id,) in stored]
    assert pages(watched_api) == [whole]
    assert whole[:5] == ["past-4", "past-3", "past-2", "past-1", "past-0"]
    for limit in (1, 2, len(whole)):
        found = pages(watched_api, limit=limit)
        assert [decision_id for page in found for decision_id in page] == whole
        assert {len(page) for page in found[:-1]} <= {limit}
        assert found[-1], "the last page is not empty"


def test_decisions_can_be_asked_for_by_action(watched_api: Api) -> None:
    assert pages(watched_api, action="reject") == [["past-3", "past-1"]]
    assert pages(watched_api, action=["reject", "skip"], limit=3) == [
        ["past-4", "past-3", "past-2"],
        ["past-1", "past-0"],
    ]
    assert pages(watched_api, action="rollback") == [[]]


def test_a_decision_is_told_with_conditions_gates_digests_and_its_link(watched_api: Api) -> None:
    decision = watched_api.client.get("/decisions/past-3").json()
    assert (decision["action"], decision["failed_gates"]) == ("reject", ["f1_improvement"])
    assert decision["conditions"] == [{"name": "cooldown", "is_met": True, "reason": "no promotion in 7 days"}]
    assert [(g["name"], g["status"], g["value"], g["interval_low"]) for g in decision["gates"]] == [
        ("f1_improvement", "FAIL", 0.5, -0.5),
        ("brier", "PASS", 0.001, None),
    ]
    assert [(g["direction"], g["unit"], g["is_counted"]) for g in decision["gates"]] == [
        ("at_least", "percent", True),
        (None, None, True),
    ], "of a gate that this release does not have, nothing is assumed"
    assert decision["data_sha256"] == "d" * 64
    assert decision["prev_hash"] == watched_api.client.get("/decisions/past-2").json()["hash"]


def test_a_verdict_names_the_version_that_its_model_became(watched_api: Api) -> None:
    """The verdict is hashed before its model is registered; a model that never was has no number."""
    listed = {one["decision_id"]: one for one in watched_api.client.get("/decisions").json()["decisions"]}
    live = query(watched_api.settings, "SELECT decision_id, version FROM promotions")
    assert {listed[decision_id]["action"] for decision_id, _ in live} == {"promote"}
    for decision_id, version in live:
        assert listed[decision_id]["challenger_version"] == version
        assert watched_api.client.get(f"/decisions/{decision_id}").json()["challenger_version"] == version
    trained = [one["challenger_version"] for one in listed.values() if one["action"] == "train"]
    assert trained == [None], "which has judged and put live nothing"


@pytest.mark.parametrize("decision_id", ["nothing", "a" * 64, "-"])
def test_a_decision_that_is_not_there_is_a_404(watched_api: Api, decision_id: str) -> None:
    assert_problem(watched_api.client.get(f"/decisions/{decision_id}"), 404)


@pytest.mark.parametrize("decision_id", ["%00", "past-1%00", "a" * 65, "a%0A", "%F0%9F%92%A5", "a%20b", "%27"])
def test_what_is_no_id_is_a_422_and_never_reaches_postgres(watched_api: Api, decision_id: str) -> None:
    assert "decision_id" in assert_problem(watched_api.client.get(f"/decisions/{decision_id}"), 422)["detail"]
