"""The containers benchmark's own rules: who is killed, what counts as a problem, what is written for the comparison."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from benchmarks.containers.outcome import LONGEST_GAP_SECONDS, Outcome, Scenario, show
from benchmarks.containers.platform import HERE, ONE_SHOTS, SERVICES, VOLUMES, free_pair, main_process, replaced
from benchmarks.containers.scenarios import NEXT_MIGRATION, still_open, victims
from benchmarks.containers.verified import read_ledger, write_ledger
from benchmarks.load import http_request
from benchmarks.running_platform import PlatformIsStuckError
from benchmarks.witness import Acknowledged, Ledger
from selfheal.simulate.compose import Container
from tests.processes import REPOSITORY

COMPOSE = yaml.safe_load((REPOSITORY / "deploy/compose.yaml").read_text())
VERIFIED: dict[str, Any] = {
    "lost": 0,
    "labels_lost": 0,
    "duplicated": 0,
    "wrong_values": 0,
    "verify": [],
    "acknowledged": 9,
}
SOUND = Scenario("kills", acknowledged=9, kills_by={"api": 2}, verified=VERIFIED)


def outcome(scenario: Scenario = SOUND, **changes: Any) -> Outcome:
    values: dict[str, Any] = {
        "kills_wanted": 2,
        "ready_s": 1.0,
        "rss_mb_total": 1.0,
        "minutes": 1.0,
        "clients": {},
        "left_behind": [],
    }
    return Outcome([scenario], **(values | changes))


def container(**changes: Any) -> Container:
    values: dict[str, Any] = {
        "id": "1",
        "service": "api",
        "pid": 1,
        "n_restarts": 0,
        "state": "running",
        "health": "healthy",
        "exit_code": 0,
        "image_id": "new",
    }
    return Container(**(values | changes))


def test_each_service_is_killed_once_before_any_is_killed_again() -> None:
    random.seed(3)
    found = victims(20)
    assert len(found) == 20
    assert Counter(found[: len(SERVICES)]) == Counter(SERVICES)
    assert max(Counter(found).values()) - min(Counter(found).values()) <= 1


def test_the_services_and_volumes_are_those_of_the_compose_file() -> None:
    always = {name for name, service in COMPOSE["services"].items() if "profiles" not in service}
    assert always == {*SERVICES, *ONE_SHOTS}
    assert COMPOSE["volumes"].keys() >= set(VOLUMES)
    own = yaml.safe_load((HERE / "compose.yaml").read_text().replace("!override", ""))
    assert own["services"].keys() == always, "each has the name of the host"


def test_a_sound_run_has_no_problem() -> None:
    assert outcome().problems == []


@pytest.mark.parametrize("key", ["lost", "labels_lost", "duplicated", "wrong_values"])
def test_each_count_that_must_be_nothing_is_a_problem(key: str) -> None:
    found = outcome(replace(SOUND, verified=VERIFIED | {key: 3})).problems
    assert found == [f"kills: {key}: 3"]


def test_the_table_says_what_is_unknown_and_who_was_killed(capsys: pytest.CaptureFixture[str]) -> None:
    show(outcome(replace(SOUND, verified={}, alerts={"monitor_silent": 1})), Console())
    shown = capsys.readouterr().out
    assert shown.count("?") == 3, "lost, doubled, wrong"
    assert "kills: api 2\n" in shown
    assert "kills: alerts monitor_silent 1\n" in shown
    assert "Problem: kills: what was acknowledged was not compared" in shown


def test_what_was_not_measured_is_a_problem() -> None:
    assert outcome(kills_wanted=3).problems == ["2 kills instead of 3"]
    assert outcome(replace(SOUND, verified={})).problems == ["kills: what was acknowledged was not compared"]
    assert outcome(replace(SOUND, acknowledged=0)).problems == [
        "kills: no prediction was acknowledged: there was no load"
    ]


def test_what_clients_and_operators_saw_wrong_is_a_problem() -> None:
    assert len(outcome(clients={"n_answered_differently": 1, "n_other_answers": 2, "n_refused": 9}).problems) == 2
    assert len(outcome(left_behind=["volume x"]).problems) == 1
    assert len(outcome(replace(SOUND, alerts_left_open=["journal_lag"], found=["stuck"])).problems) == 2
    assert len(outcome(replace(SOUND, verified=VERIFIED | {"verify": ["a decision differs"]})).problems) == 1
    gap = LONGEST_GAP_SECONDS + 1
    assert outcome(replace(SOUND, longest_gap_s=gap)).problems == [], "a killed API takes its time"
    assert len(outcome(replace(SOUND, name="upgrade", longest_gap_s=gap)).problems) == 1, "two are never away at once"


def test_only_open_alerts_about_the_platform_itself_have_to_end() -> None:
    def alert(kind: str, resolved_at: str | None = None) -> dict[str, Any]:
        return {"kind": kind, "resolved_at": resolved_at}

    kinds = [
        alert("harmful_shift"),
        alert("monitor_silent"),
        alert("journal_lag", "then"),
        alert("retraining_job_failed"),
    ]
    assert still_open(kinds) == ["monitor_silent", "retraining_job_failed"]


def test_an_upgrade_is_done_when_every_container_of_ours_has_the_new_image() -> None:
    ours = [container(service=name) for name in SERVICES if name != "postgres"]
    others = [container(service="postgres", image_id="theirs")]
    assert replaced([*ours, *others], "new")
    assert not replaced([*ours[1:], *others], "new"), "one is missing"
    assert not replaced([*ours, *others, container(image_id="old")], "new")


def test_what_clients_were_told_is_compared_to_the_last_bit(tmp_path: Path) -> None:
    told = Acknowledged(4, "id", 1, 0.1 + 0.2, 1 / 3, 2)
    ledger = Ledger([{"age": 1.1, "income": None}], acknowledged=[told], labels={"id": 1})
    write_ledger(ledger, tmp_path)
    found = read_ledger(tmp_path)
    assert (found.acknowledged, found.labels, found.rows) == ([told], {"id": 1}, ledger.rows)


def test_the_migration_of_the_upgrade_is_one() -> None:
    names: dict[str, Any] = {}
    exec(NEXT_MIGRATION.format(revision="9999", head="0014"), names)
    assert (names["revision"], names["down_revision"]) == ("9999", "0014")


def test_a_request_has_the_key_that_the_service_asks_for() -> None:
    assert b"X-API-Key: k\r\n" in Ledger([{}], api_key="k").question(1, has_own_ids=False).request
    assert b"X-API-Key" not in http_request("/predict", b"{}")


def test_ports_of_two_containers_are_next_to_each_other() -> None:
    first = free_pair()
    assert 1_024 < first < 65_535


def test_an_engine_elsewhere_is_not_robbed_of_a_process_of_this_machine() -> None:
    with pytest.raises(PlatformIsStuckError, match="run this on the engine's machine"):
        main_process(container(pid=2**22 + 5))
