"""A second use case, small and quick: will a machine fail within a day? Nothing outside this module names its features."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from selfheal.domain.contract import (
    TRUE_LABEL,
    AdverseReason,
    Columns,
    DerivedFeature,
    Feature,
    FloatArray,
    Label,
    ModelContract,
    Scenario,
    Segment,
)

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd
    from sklearn.pipeline import Pipeline

LOAD = AdverseReason("LOAD", "Load on the machine, by itself and with the heat")


def derive(columns: Columns) -> dict[str, FloatArray]:
    return {"strain": columns["load_ratio"] * np.nan_to_num(columns["temperature_c"], nan=60.0) / 100.0}


def build_estimator(seed: int) -> Pipeline:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    return Pipeline(
        [
            ("impute", SimpleImputer(strategy="median")),
            ("scale", StandardScaler()),
            ("classify", LogisticRegression(random_state=seed)),
        ]
    )


def synthesize(n_rows: int, seed: int) -> pd.DataFrame:
    import pandas as pd

    rng = np.random.default_rng(seed)
    temperature = rng.normal(60.0, 12.0, n_rows)
    load = rng.uniform(0.1, 1.2, n_rows)
    restarts = rng.poisson(1.5, n_rows).astype(float)
    log_odds = -4.0 + 0.05 * (temperature - 60.0) + 3.0 * load + 0.5 * restarts
    labels = rng.random(n_rows) < 1 / (1 + np.exp(-log_odds))
    temperature[rng.random(n_rows) < 0.05] = np.nan
    return pd.DataFrame(
        {
            "temperature_c": temperature,
            "load_ratio": load,
            "restarts": restarts,
            TRUE_LABEL: labels.astype(np.int64),
        }
    )


def overheating(
    inputs: pd.DataFrame, labels: npt.NDArray[np.int64], rng: np.random.Generator
) -> tuple[pd.DataFrame, npt.NDArray[np.int64]]:
    """A hot summer: temperatures rise, and now it is the idle machines that fail."""
    changed = inputs.assign(temperature_c=inputs["temperature_c"] + 25.0)
    log_odds = 2.5 - 5.0 * inputs["load_ratio"].to_numpy()
    return changed, (rng.random(len(labels)) < 1 / (1 + np.exp(-log_odds))).astype(np.int64)


contract = ModelContract(
    name="machine_failure",
    description="Probability that a machine fails within a day.",
    label=Label("failed", "1 if the machine failed within a day", aliases=("Failed-24h",)),
    inputs=(
        Feature(
            "temperature_c", "float", -50.0, 300.0, "degrees Celsius", "Bearing temperature", 61.5, True, ("Temp-C",)
        ),
        Feature("load_ratio", "float", 0.0, 5.0, "ratio", "Load over rated load", 0.7, adverse_reason=LOAD),
        Feature("restarts", "int", 0, 1_000, "count per day", "Restarts in the last day", 1),
    ),
    derived=(
        DerivedFeature(
            "strain",
            "float",
            "degrees Celsius",
            "load_ratio x temperature_c / 100",
            "heat under load wears",
            adverse_reason=LOAD,
        ),
    ),
    derive=derive,
    build_estimator=build_estimator,
    param_grid={"classify__C": (0.1, 1.0)},
    synthesize=synthesize,
    default_csv="machines.csv",
    segments=(Segment("load_ratio", (0.6,), "light and heavy load"),),
    scenarios=(Scenario("overheating", "a hot summer", overheating),),
)

keyed = replace(contract, entity="machine", entity_is_required=True)
"""The same use case, whose requests say which machine a row is about."""
