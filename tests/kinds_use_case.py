"""A use case with inputs that are no numbers: will a customer end the contract? Nothing outside this module names its features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from selfheal.domain.contract import (
    TRUE_LABEL,
    Columns,
    DerivedFeature,
    Feature,
    FloatArray,
    Label,
    ModelContract,
)

if TYPE_CHECKING:
    import pandas as pd


def derive(columns: Columns) -> dict[str, FloatArray]:
    return {"is_new": columns["tenure_months"] < 6}  # type: ignore[dict-item]  # numpy's own type of a flag will do


def synthesize(n_rows: int, seed: int) -> pd.DataFrame:
    import pandas as pd

    rng = np.random.default_rng(seed)
    tenure = rng.integers(0, 72, n_rows)
    charge = rng.uniform(20.0, 120.0, n_rows).round(2)
    is_paperless = rng.random(n_rows) < 0.6
    has_partner = np.where(rng.random(n_rows) < 0.1, np.nan, rng.random(n_rows) < 0.5)
    log_odds = -2.5 + 1.5 * (tenure < 6) + 0.02 * charge + 1.2 * is_paperless - 0.8 * np.nan_to_num(has_partner)
    return pd.DataFrame(
        {
            "tenure_months": tenure,
            "monthly_charge": charge,
            "is_paperless": is_paperless,
            "has_partner": has_partner,
            TRUE_LABEL: (rng.random(n_rows) < 1 / (1 + np.exp(-log_odds))).astype(np.int64),
        }
    )


contract = ModelContract(
    name="customers_who_leave",
    description="Probability that a customer ends the contract within a month.",
    label=Label("left", "1 if the customer ended the contract"),
    inputs=(
        Feature("tenure_months", "int", 0, 1_000, "months", "Time as a customer", 14),
        Feature("monthly_charge", "float", 0, 10_000, "euro", "Last bill", 54.9),
        Feature("is_paperless", "bool", description="Bills come by mail", example=True, aliases=("PaperlessBilling",)),
        Feature("has_partner", "bool", description="Lives with a partner", example=False, is_nullable=True),
    ),
    derived=(DerivedFeature("is_new", "bool", "true or false", "tenure_months < 6", "new customers leave"),),
    derive=derive,
    synthesize=synthesize,
)
