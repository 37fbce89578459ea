"""Rules of scenarios: pure functions of rows and a seed."""

from __future__ import annotations

import pandas as pd
import pytest

from selfheal.domain.contract import CALM, TRUE_LABEL
from selfheal.domain.scenarios import scenario_rows
from selfheal.kit.errors import ConfigurationError
from tests.toy_use_case import contract


def toy_rows(n_rows: int) -> pd.DataFrame:
    return contract.synthesize(n_rows, 5)


def test_calm_leaves_the_rows_as_they_are() -> None:
    rows = toy_rows(50)
    pd.testing.assert_frame_equal(scenario_rows(rows, contract, CALM, seed=1), rows)


def test_a_scenario_changes_a_copy_of_the_rows_and_does_the_same_with_the_same_seed() -> None:
    rows = toy_rows(200)
    before = rows.copy()
    first, second = (scenario_rows(rows, contract, "overheating", seed=1) for _ in range(2))
    pd.testing.assert_frame_equal(rows, before)
    pd.testing.assert_frame_equal(first, second)
    assert list(first.columns) == [*contract.input_names, TRUE_LABEL]
    assert not first.equals(rows)


def test_an_unknown_scenario_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no scenario 'flood'"):
        scenario_rows(toy_rows(5), contract, "flood", seed=1)
