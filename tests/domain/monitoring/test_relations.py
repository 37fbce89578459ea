"""Rules of relations to the other columns: they tell a slice from a filled-in value, and a shift from a swap, or say nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from selfheal.domain.monitoring.prepared_rows import PreparedRows
from selfheal.domain.monitoring.relations import have_exchanged_relations, keeps_no_relation, slice_size

NAMES = ("flag", "other", "age")


def rows(n_rows: int, seed: int, relation: float = 1.0, share: float = 0.3) -> pd.DataFrame:
    """Age follows the flag by `relation` standard deviations, and the other flag in the opposite direction."""
    rng = np.random.default_rng(seed)
    flag, other = rng.random(n_rows) < share, rng.random(n_rows) < 0.3
    age = relation * flag - relation * other + rng.normal(size=n_rows)
    return pd.DataFrame({"flag": flag, "other": other, "age": age}).astype(np.float64)


@pytest.fixture(scope="module")
def reference() -> PreparedRows:
    return PreparedRows(rows(6_000, 1))


@pytest.mark.parametrize("seed", range(3))
def test_a_slice_keeps_its_relation_and_a_filled_in_value_does_not(reference: PreparedRows, seed: int) -> None:
    a_slice = PreparedRows(rows(500, seed + 10, share=1.0))
    filled = PreparedRows(rows(500, seed + 10).assign(flag=1.0))
    assert not keeps_no_relation(a_slice, reference, {"flag": 1.0}, NAMES)
    assert keeps_no_relation(filled, reference, {"flag": 1.0}, NAMES)


def test_a_column_that_is_related_to_nothing_is_not_called_filled_in() -> None:
    then = PreparedRows(rows(6_000, 1, relation=0.0))
    assert not keeps_no_relation(PreparedRows(rows(500, 2, relation=0.0).assign(flag=1.0)), then, {"flag": 1.0}, NAMES)
    assert not keeps_no_relation(PreparedRows(rows(500, 2)[["flag"]].assign(flag=1.0)), then, {"flag": 1.0}, ("flag",))


def test_only_swapped_columns_have_exchanged_relations(reference: PreparedRows) -> None:
    now = rows(500, 2, share=0.6)
    swapped = now.rename(columns={"flag": "other", "other": "flag"})
    pair = ("flag", "other")
    assert not have_exchanged_relations(PreparedRows(now), reference, pair, NAMES)
    assert have_exchanged_relations(PreparedRows(swapped), reference, pair, NAMES)
    assert not have_exchanged_relations(PreparedRows(swapped), reference, pair, pair)


def test_the_size_of_a_slice_counts_rows_with_all_values(reference: PreparedRows) -> None:
    both = int(((reference.rows["flag"] == 1) & (reference.rows["other"] == 1)).sum())
    assert slice_size(reference, {"flag": 1.0, "other": 1.0}) == both
