"""The hash chain of decisions: what is kept, and which tampering shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from selfheal.adapters.postgres import decisions
from selfheal.adapters.postgres.store import Store
from selfheal.domain.records import Action, Condition, Decision, GateResult, GateStatus, Onset
from tests import builders
from tests.at_once import at_once
from tests.times import T0


def decision(number: int, action: Action = Action.SKIP, episode_id: str | None = None) -> Decision:
    return builders.decision(
        decision_id=f"d{number}",
        created_at=T0 + timedelta(minutes=number),
        action=action,
        reason="a reason",
        champion_version=1,
        episode_id=episode_id,
        conditions=(Condition("cooldown", False, "cooling down"),),
        gates=(GateResult("recall", GateStatus.FAIL, 0.1 + 0.2, 0.3, "recall 0.3"),),
    )


def chained(store: Store, n: int) -> list[Decision]:
    appended = [decision(i) for i in range(n)]
    for one in appended:
        assert decisions.append(store, one)
    return appended


def execute(store: Store, statement: str) -> None:
    with store.engine.begin() as connection:
        connection.execute(text(statement))


def test_decisions_come_back_as_they_were_appended_the_newest_first(store: Store) -> None:
    appended = chained(store, 3)
    assert decisions.recent(store) == appended[::-1]
    assert decisions.recent(store, limit=1) == appended[-1:]
    assert decisions.find(store, "d1") == appended[1]
    assert decisions.find(store, "unknown") is None
    assert decisions.chain_problems(store) == []


def test_appending_a_decision_twice_keeps_the_first(store: Store) -> None:
    first = decision(1)
    assert decisions.append(store, first)
    assert not decisions.append(store, replace(first, reason="another reason", created_at=T0))
    assert decisions.recent(store) == [first]
    assert decisions.chain_problems(store) == []


def test_the_changes_that_were_seen_are_listed_once_a_champion_as_they_were_seen_last(store: Store) -> None:
    def onset(minute: int) -> Onset:
        at = T0 + timedelta(minutes=minute)
        return Onset(at, at, at + timedelta(minutes=5), 0.001, "score", 900, 400 + minute)

    seen = [None, (1, onset(10)), (1, onset(12)), None, (2, onset(30))]
    for number, change in enumerate(seen):
        champion, found = change or (1, None)
        assert decisions.append(store, replace(decision(number), champion_version=champion, onset=found))
    assert decisions.onsets_since(store, T0, 10) == [onset(30), onset(12)]
    assert decisions.onsets_since(store, T0 + timedelta(minutes=3), 10) == [onset(30)]
    assert decisions.onsets_since(store, T0, 1) == [onset(30)]
    assert decisions.chain_problems(store) == []


@pytest.mark.parametrize(
    "edit",
    [
        "reason = 'it was fine'",
        "action = 'promote'",
        "actor = 'nobody'",
        "champion_version = NULL",
        "created_at = created_at + interval '1 day'",
        """conditions = jsonb_set(conditions, '{0,is_met}', 'true')""",
        """gates = jsonb_set(gates, '{0,value}', '0.9')""",
        "failed_gates = '[]'",
    ],
)
def test_an_edited_row_is_found(store: Store, edit: str) -> None:
    chained(store, 3)
    execute(store, f"UPDATE retraining_decisions SET {edit} WHERE decision_id = 'd1'")
    assert decisions.chain_problems(store) == ["decision d1: its content does not match its hash"]


def test_an_edited_row_whose_hash_was_made_to_fit_breaks_the_link_after_it(store: Store) -> None:
    chained(store, 3)
    execute(store, "UPDATE retraining_decisions SET hash = 'forged' WHERE decision_id = 'd1'")
    assert "decision d2: the record before it in the chain is missing or was changed" in decisions.chain_problems(store)


def test_a_row_deleted_from_the_middle_or_the_beginning_is_found(store: Store) -> None:
    chained(store, 4)
    execute(store, "DELETE FROM retraining_decisions WHERE decision_id = 'd1'")
    assert decisions.chain_problems(store) == [
        "decision d2: the record before it in the chain is missing or was changed"
    ]
    execute(store, "DELETE FROM retraining_decisions WHERE decision_id = 'd0'")
    assert decisions.chain_problems(store) == [
        "decision d2: the record before it in the chain is missing or was changed"
    ]


def test_the_chain_goes_on_after_its_problem(store: Store) -> None:
    chained(store, 3)
    execute(store, "DELETE FROM retraining_decisions WHERE decision_id = 'd1'")
    assert decisions.append(store, decision(9))
    assert len(decisions.chain_problems(store)) == 1


def test_appends_at_the_same_time_make_one_chain(open_again: Callable[[], Store]) -> None:
    def append_ten(store: Store, first: int) -> int:
        return sum(decisions.append(store, decision(i)) for i in range(first, first + 10))

    stores = [open_again() for _ in range(4)]
    n_new = at_once([partial(append_ten, store, 5 * i) for i, store in enumerate(stores)])  # half of them twice
    assert sum(n_new) == len(decisions.recent(stores[0])) == 25
    assert decisions.chain_problems(stores[0]) == []


def test_recent_decisions_are_those_of_the_actions_asked_for(store: Store) -> None:
    for number, action in enumerate((Action.SKIP, Action.TRAIN, Action.REJECT)):
        decisions.append(store, decision(number, action))
    found = decisions.recent(store, actions=[Action.TRAIN, Action.SKIP])
    assert [one.action for one in found] == [Action.TRAIN, Action.SKIP]


def test_attempts_of_an_episode_are_its_judged_retrainings_the_oldest_first(store: Store) -> None:
    actions = (Action.TRAIN, Action.REJECT, Action.SKIP, Action.INCONCLUSIVE, Action.PROMOTE, Action.ROLLBACK)
    for number, action in enumerate(actions):
        decisions.append(store, decision(number, action, episode_id="e1"))
    decisions.append(store, decision(9, Action.REJECT, episode_id="e2"))
    found = [one.action for one in decisions.attempts_of(store, "e1")]
    assert found == [Action.REJECT, Action.INCONCLUSIVE, Action.PROMOTE]


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=30)
numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False)
moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@example(reason="", actor="", value=-0.0, threshold=1e22, created_at=T0)
@example(reason="'\\", actor="ä", value=5e-324, threshold=None, created_at=T0)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(reason=words, actor=words, value=numbers, threshold=numbers, created_at=moments)
def test_whatever_a_decision_says_it_is_read_back_unchanged(
    store: Store, reason: str, actor: str, value: float | None, threshold: float | None, created_at: datetime
) -> None:
    execute(store, "DELETE FROM retraining_decisions")
    gate = GateResult("recall", GateStatus.FAIL, value, threshold, reason)
    given_decision = replace(decision(1), reason=reason, actor=actor, created_at=created_at, gates=(gate,))
    decisions.append(store, given_decision)
    assert decisions.find(store, "d1") == given_decision
    assert decisions.chain_problems(store) == []
