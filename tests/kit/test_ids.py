"""Rules of ids: unique, and in the order in which they were made."""

from __future__ import annotations

from selfheal.kit.ids import new_id


def test_ids_are_unique_and_sort_by_the_time_they_were_made() -> None:
    ids = [new_id() for _ in range(2_000)]
    assert len(set(ids)) == len(ids)
    assert ids == sorted(ids)
    assert {one.version for one in ids} == {7}
