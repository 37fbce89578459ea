"""Rules of periods of a broken feed that a declaration accepts."""

from __future__ import annotations

from datetime import timedelta

import pytest

from selfheal.domain.monitoring.accepted_periods import newly_accepted
from selfheal.domain.monitoring.declarations import Declaration, Declared
from selfheal.domain.records import SpoiledPeriod
from tests.times import T0

HOUR = timedelta(hours=1)


def declared(column: str, hour: int = 0) -> Declaration:
    return Declaration(Declared.SOUND, column, True, "ann", T0 + hour * HOUR, "new shop", f"of {column}")


def period(*columns: str, hour: int = 0, version: int = 2, accepted_by: str | None = None) -> SpoiledPeriod:
    return SpoiledPeriod(version, T0 + hour * HOUR, T0 + (hour + 1) * HOUR, ("a reason",), columns, accepted_by)


SOUND = {"hour": declared("hour", 1), "day": declared("day", 2)}


@pytest.mark.parametrize(
    ("found", "by"),
    [
        (period("hour"), "of hour"),
        (period("hour", "day"), "of day"),
        (period("hour", "amount"), None),
        (period("amount"), None),
        (period("hour", version=1), None),
        (period(), None),
    ],
    ids=["declared", "all declared", "one is not", "another", "of an earlier version", "unknown"],
)
def test_a_period_is_accepted_if_all_that_was_broken_is_declared_sound(found: SpoiledPeriod, by: str | None) -> None:
    assert newly_accepted({"t": found}, SOUND, 2) == ({} if by is None else {"t": by})


def test_what_is_accepted_already_is_no_change() -> None:
    assert newly_accepted({"t": period("hour", accepted_by="of hour")}, SOUND, 2) == {}


@pytest.mark.parametrize("version", [1, 2])
def test_a_withdrawal_ends_the_acceptance_whichever_version_served(version: int) -> None:
    accepted = {"t": period("hour", version=version, accepted_by="of hour")}
    assert newly_accepted(accepted, {"day": declared("day")}, 2) == {"t": None}


@pytest.mark.parametrize(
    ("before", "by"),
    [
        ({"a": period("hour")}, "of hour"),
        ({"a": period("hour"), "b": period("amount")}, None),
        ({"a": period("hour", hour=-1)}, None),
        ({"a": period("hour", version=1)}, None),
        ({}, None),
    ],
    ids=["accepted", "one is not", "not adjacent", "another version's", "none"],
)
def test_what_lies_between_a_broken_check_and_a_sound_one_is_accepted_with_the_broken_one(
    before: dict[str, SpoiledPeriod], by: str | None
) -> None:
    assert newly_accepted({**before, "gap": period(hour=1)}, SOUND, 2).get("gap") == by
