"""Rules of declared columns: what is computed from one follows it, and nothing else does."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from selfheal.domain.monitoring import seasons
from selfheal.domain.monitoring.declared_moves import followers
from selfheal.domain.monitoring.drift import PROBABILITY
from selfheal.domain.monitoring.seasons import Calm, Kind
from selfheal.domain.monitoring.triage import HarmLimits, triage
from selfheal.domain.records import DriftReport, Excursions, SeasonMemory, Shortfall, Verdict
from tests.builders import performance, regret, window
from tests.domain.monitoring.toy_drift import detected
from tests.toy_use_case import contract

BY_ANN = "declared seasonal by ann on 2026-01-05: inventory week"


def scored(inputs: pd.DataFrame) -> pd.DataFrame:
    features = contract.feature_frame(inputs)
    return features.assign(probability=1 / (1 + np.exp(2.0 - features["load_ratio"] - features["restarts"] / 2)))


@pytest.fixture(scope="module")
def reference() -> pd.DataFrame:
    return scored(contract.synthesize(4_000, 1))


@pytest.fixture(scope="module")
def heavy() -> pd.DataFrame:
    """Inputs of a week in which only the load is higher."""
    rows = contract.synthesize(1_500, 2)
    return rows.assign(load_ratio=rows["load_ratio"] + 0.3)


def report(current: pd.DataFrame, reference: pd.DataFrame, *declared: str) -> DriftReport:
    calm = Calm(
        SeasonMemory(window().end - timedelta(days=40)),
        declared=dict.fromkeys(declared, BY_ANN),
        followers=followers(contract, declared),
    )
    return detected(current, reference, recent=current.tail(500), calm=calm)


def verdict(found: DriftReport, **changes: object) -> Verdict:
    return triage(found, performance(**changes), HarmLimits(0.02, 0.5), None).verdict


def test_a_derived_feature_depends_on_the_declared_ones_of_its_inputs() -> None:
    assert followers(contract, ["load_ratio"]) == {"strain": ("load_ratio",)}
    assert followers(contract, ["restarts"]) == followers(contract, ["strain", "load_ratio"]) == {}


def test_what_is_computed_from_a_declared_column_follows_it(reference: pd.DataFrame, heavy: pd.DataFrame) -> None:
    undeclared = report(scored(heavy), reference)
    assert {"load_ratio", "strain"} <= set(undeclared.drifted_features)
    assert undeclared.is_multivariate_drifted
    found = report(scored(heavy), reference, "load_ratio")
    assert (found.drifted_features, found.is_multivariate_drifted) == ((), False)
    assert not any(column.is_drifted for column in found.columns)
    assert verdict(found) is Verdict.STABLE
    told = " | ".join(found.explained)
    assert f"load_ratio has moved higher {BY_ANN}" in told
    assert told.count(f"higher {BY_ANN}") == 1, "both windows say the same"
    for follower in ("strain", PROBABILITY):
        assert f"{follower} has moved higher with load_ratio ({BY_ANN}), from which it is computed" in told
    assert "the columns together have moved with load_ratio" in told
    assert "without it a classifier's AUC is 0.5" in told


def test_what_has_moved_is_explained_once_also_where_moves_follow_a_declared_column(
    reference: pd.DataFrame, heavy: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time settles and remembers up to a hundred excursions anew."""
    began: list[Kind] = []
    begin = seasons._begun

    def counted(one: Excursions | None, kind: Kind, now: datetime) -> Excursions:
        began.append(kind)
        return begin(one, kind, now)

    monkeypatch.setattr(seasons, "_begun", counted)
    assert report(scored(heavy), reference, "load_ratio").explained
    assert len(began) == len(set(began)) > 2


def test_harm_that_labels_prove_is_heard_although_its_column_is_declared(
    reference: pd.DataFrame, heavy: pd.DataFrame
) -> None:
    found = report(scored(heavy), reference, "load_ratio")
    assert verdict(found, brier_excess=0.1, brier_excess_low=0.05) is Verdict.HARMFUL_SHIFT
    assert verdict(found, regret=regret(f1=Shortfall(0.3, 0.6, 1e-9))) is Verdict.HARMFUL_SHIFT


def test_where_another_column_has_moved_too_nothing_follows(reference: pd.DataFrame, heavy: pd.DataFrame) -> None:
    found = report(scored(heavy.assign(restarts=heavy["restarts"] + 1)), reference, "load_ratio")
    assert set(found.drifted_features) == {"restarts", "strain"}
    assert any(column.is_drifted for column in found.columns if column.column == PROBABILITY)
    assert found.is_multivariate_drifted


def test_a_changed_relation_of_the_other_columns_is_seen_beside_a_declared_one(
    reference: pd.DataFrame, heavy: pd.DataFrame
) -> None:
    """Each of the others has the values that it had, in another order: only the classifier can see it."""
    order = np.argsort(np.argsort(heavy["restarts"].to_numpy(), kind="stable"), kind="stable")
    sorted_hot = np.sort(heavy["temperature_c"].fillna(60.0).to_numpy())
    found = report(scored(heavy.assign(temperature_c=sorted_hot[order])), reference, "load_ratio")
    assert found.is_multivariate_drifted
    assert verdict(found) is Verdict.BENIGN_SHIFT


def test_what_is_computed_from_a_declared_column_that_has_not_moved_is_drift(reference: pd.DataFrame) -> None:
    current = scored(contract.synthesize(1_500, 2))
    found = report(current.assign(strain=current["strain"] * 1.5), reference, "load_ratio")
    assert found.drifted_features == ("strain",)


def test_a_declared_column_that_goes_missing_takes_nothing_with_it(
    reference: pd.DataFrame, heavy: pd.DataFrame
) -> None:
    current = scored(heavy)
    current.loc[current.index[::3], "load_ratio"] = np.nan
    found = report(current, reference, "load_ratio")
    assert {"load_ratio", "strain"} <= set(found.drifted_features)
