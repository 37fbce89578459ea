"""Decisions are kept twice; `verify` finds whatever was done to one of the two."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import text

from selfheal.adapters.decision_log import decision_folder, record_decision, verify_decisions
from selfheal.adapters.postgres import chain, decisions
from selfheal.domain.records import Action, Decision, GateResult, GateStatus
from selfheal.kit.serialization import to_dict
from selfheal.services.platform import Platform
from tests.adapters.postgres.test_decisions import decision
from tests.at_once import at_once


@pytest.fixture
def recorded(empty_platform: Platform) -> list[Decision]:
    data_dir = empty_platform.settings.data_dir
    return [record_decision(empty_platform.store, data_dir, decision(i)) for i in range(3)]


def file_of(platform: Platform, recorded: Decision) -> Path:
    (path,) = decision_folder(platform.settings.data_dir).glob(f"*-{recorded.decision_id}.json")
    return path


def problems(platform: Platform) -> list[str]:
    return verify_decisions(platform.store, platform.settings.data_dir)


def test_a_decision_is_kept_in_postgres_and_as_a_file(empty_platform: Platform, recorded: list[Decision]) -> None:
    for one in recorded:
        assert decisions.find(empty_platform.store, one.decision_id) == one
        assert json.loads(file_of(empty_platform, one).read_bytes()) == to_dict(one)
    assert problems(empty_platform) == []


def test_a_decision_recorded_again_stays_as_it_was_first(empty_platform: Platform, recorded: list[Decision]) -> None:
    other = replace(recorded[1], action=Action.PROMOTE, reason="second thoughts")
    assert record_decision(empty_platform.store, empty_platform.settings.data_dir, other) == recorded[1]
    assert problems(empty_platform) == []


def test_the_file_is_written_if_a_crash_came_before_it(empty_platform: Platform) -> None:
    decisions.append(empty_platform.store, decision(1))
    assert problems(empty_platform) == ["decision d1 has no JSON file"]
    record_decision(empty_platform.store, empty_platform.settings.data_dir, decision(1))
    assert problems(empty_platform) == []


def test_a_decision_may_be_recorded_by_several_at_once(empty_platform: Platform) -> None:
    data_dir = empty_platform.settings.data_dir
    for number in range(8):
        record = partial(record_decision, empty_platform.store, data_dir, decision(number))
        assert at_once([record] * 6) == [decision(number)] * 6
    assert problems(empty_platform) == []
    assert len(list(decision_folder(data_dir).iterdir())) == 8, "no temporary file is left"


def test_an_edited_file_is_found(empty_platform: Platform, recorded: list[Decision]) -> None:
    path = file_of(empty_platform, recorded[1])
    path.write_bytes(path.read_bytes().replace(b"a reason", b"no reason"))
    assert problems(empty_platform) == [f"decision d1 in Postgres differs from {path.name}"]


def test_a_deleted_file_is_found(empty_platform: Platform, recorded: list[Decision]) -> None:
    file_of(empty_platform, recorded[1]).unlink()
    assert problems(empty_platform) == ["decision d1 has no JSON file"]


def test_a_file_that_is_no_record_is_found(empty_platform: Platform, recorded: list[Decision]) -> None:
    path = file_of(empty_platform, recorded[1])
    path.write_bytes(b"")
    assert problems(empty_platform) == [f"{path.name} is not a decision record", "decision d1 has no JSON file"]


def test_the_last_row_deleted_from_the_table_is_found_by_its_file(
    empty_platform: Platform, recorded: list[Decision]
) -> None:
    """The chain alone cannot tell that its end is missing."""
    with empty_platform.store.engine.begin() as connection:
        connection.execute(text("DELETE FROM retraining_decisions WHERE decision_id = 'd2'"))
    name = file_of(empty_platform, recorded[2]).name
    assert problems(empty_platform) == [f"decision d2 is in {name} but not in Postgres"]


def test_a_table_forged_with_fitting_hashes_differs_from_the_files(
    empty_platform: Platform, recorded: list[Decision]
) -> None:
    with empty_platform.store.engine.begin() as connection:
        connection.execute(text("DELETE FROM retraining_decisions"))
    for one in recorded:
        decisions.append(empty_platform.store, replace(one, actor="somebody else"))
    assert decisions.chain_problems(empty_platform.store) == []
    assert len(problems(empty_platform)) == len(recorded)


def test_records_that_have_grown_do_not_make_old_decisions_look_edited(
    empty_platform: Platform, recorded: list[Decision]
) -> None:
    """A gate of today has fields that those of then did not have: neither in the table, nor in the file, nor in the hash."""
    gate = GateResult("recall", GateStatus.PASS, 0.5, 0.3, "recall 0.5", 0.4, 0.6)
    old = to_dict(replace(recorded[2], decision_id="old", gates=(gate,)))
    for added in ("interval_low", "interval_high"):
        del old["gates"][0][added]
    table = empty_platform.store.tables.retraining_decisions
    head = decisions.chain_head(empty_platform.store)
    values = old | {
        "created_at": recorded[2].created_at,
        "failed_gates": [],
        "prev_hash": head,
        "hash": decisions._hash(head, old),
    }
    with empty_platform.store.engine.begin() as connection:
        connection.execute(table.insert().values(**values))
    without_later = {name: value for name, value in old.items() if name not in decisions.ADDED_LATER}
    (decision_folder(empty_platform.settings.data_dir) / "old.json").write_text(json.dumps(without_later))
    assert problems(empty_platform) == []


@pytest.mark.parametrize("place", [("note",), ("conditions", 0, "note")])
def test_what_is_added_to_a_file_under_a_name_of_its_own_is_found(
    empty_platform: Platform, recorded: list[Decision], place: tuple[str | int, ...]
) -> None:
    path = file_of(empty_platform, recorded[1])
    content = json.loads(path.read_bytes())
    *way, last = place
    inner = content
    for step in way:
        inner = inner[step]
    inner[last] = "approved by the board"
    path.write_text(json.dumps(content))
    assert problems(empty_platform) == [f"decision d1 in Postgres differs from {path.name}"]


def test_a_row_that_is_no_decision_any_more_is_found(empty_platform: Platform, recorded: list[Decision]) -> None:
    with empty_platform.store.engine.begin() as connection:
        connection.execute(text("UPDATE retraining_decisions SET gates = '[1]' WHERE decision_id = 'd1'"))
    name = file_of(empty_platform, recorded[1]).name
    assert problems(empty_platform) == [
        "decision d1: its content does not match its hash",
        f"decision d1 in Postgres differs from {name}",
    ]


def test_a_head_of_the_chain_stays_in_it_until_its_record_is_deleted(
    empty_platform: Platform, recorded: list[Decision]
) -> None:
    store = empty_platform.store
    head = decisions.chain_head(store)
    assert decisions.is_in_chain(store, head)
    assert decisions.is_in_chain(store, chain.GENESIS)
    decisions.append(store, decision(7))
    assert decisions.is_in_chain(store, head)
    with store.engine.begin() as connection:
        connection.execute(text("DELETE FROM retraining_decisions WHERE decision_id = 'd2'"))
    assert not decisions.is_in_chain(store, head)
