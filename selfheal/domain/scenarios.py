"""Scenarios: rows as a changed population would send them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from selfheal.domain.contract import CALM, TRUE_LABEL, ModelContract

if TYPE_CHECKING:
    import pandas as pd


def scenario_rows(rows: pd.DataFrame, contract: ModelContract, scenario: str, seed: int) -> pd.DataFrame:
    """Return the rows as the scenario changes them, inputs and `true_label`; `calm` leaves them unchanged."""
    if scenario == CALM:
        return rows
    labels = rows[TRUE_LABEL].to_numpy(dtype=np.int64)
    inputs, changed = contract.scenario(scenario).apply(
        rows[list(contract.input_names)], labels, np.random.default_rng(seed)
    )
    return inputs.assign(**{TRUE_LABEL: changed})
