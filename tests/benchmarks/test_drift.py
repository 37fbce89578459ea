"""The benchmark of drift asks the domain classifier as a tick does."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.drift.false_alarms import moved_together
from benchmarks.drift.population import LIMITS
from selfheal.credit_risk import contract
from selfheal.domain.monitoring.drift import TOGETHER
from selfheal.domain.monitoring.prepared_rows import PreparedRows

LEVEL = 1e-5


@pytest.mark.parametrize("is_changed", [True, False])
def test_columns_that_have_lost_their_relations_have_moved_together(*, is_changed: bool) -> None:
    rows = contract.feature_frame(contract.synthesize(6_000, 1))
    rng = np.random.default_rng(1)
    day, reference = rows.iloc[:3_000], PreparedRows(rows.iloc[3_000:].reset_index(drop=True))
    if is_changed:
        day = day.apply(lambda column: rng.permutation(column.to_numpy()))
    found = moved_together(day, reference, LEVEL)
    assert (found is not None) is is_changed
    if found is not None:
        assert found.kind == TOGETHER
        assert found.effect > found.margin
    assert moved_together(day.iloc[: LIMITS.min_rows - 1], reference, LEVEL) is None
