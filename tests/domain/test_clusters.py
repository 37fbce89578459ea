"""Rules of clustered rows: what is one entity, what rows of one are worth, and that rows without repeats stay untouched."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from selfheal.domain.clusters import (
    ENTITY,
    cluster_sums,
    copies_effect,
    design_effect,
    entity_keys,
    n_entities,
    recurs_in,
    row_clusters,
    within,
    worth,
)
from selfheal.domain.contract import Feature, Label, ModelContract
from tests.toy_use_case import contract

WITH_KEY = replace(contract, entity="machine")


def machines(n_rows: int, times: int, moved: float = 0.0, seed: int = 1) -> tuple[pd.DataFrame, np.ndarray]:
    """Features of machines that come `times` times in any order, with inputs that move; and which machine each row is of."""
    rng = np.random.default_rng(seed)
    visits = rng.permutation(np.repeat(np.arange(n_rows // times), times))
    inputs = contract.synthesize(n_rows // times, seed).drop(columns="true_label").iloc[visits].reset_index(drop=True)
    factors = np.exp(moved * rng.normal(size=inputs.shape))
    factors[:, 2] = 1.0
    return contract.feature_frame(inputs * factors), visits


def coarse(n_rows: int) -> tuple[pd.DataFrame, ModelContract]:
    """Rows whose inputs are so coarse that different cases look alike."""
    names = [f"answer_{number}" for number in range(4)]
    questions = tuple(Feature(name, "int", 0, 1, "", "yes or no", 0) for name in names)
    use_case = ModelContract(name="survey", description="", label=Label("left", ""), inputs=questions)
    return pd.DataFrame(np.random.default_rng(1).integers(0, 2, (n_rows, 4)), columns=names), use_case


def test_where_neighbours_are_many_only_equal_rows_are_one_entity() -> None:
    """Two measured values tell a machine whose values move by 2 % from others no more."""
    rows, _ = machines(1_000, 2, moved=0.02)
    assert row_clusters(rows, contract) is None


def test_six_values_without_repeats_have_no_clusters() -> None:
    rows, _, use_case = patients(5_000, 1, 0.0)
    assert row_clusters(rows, use_case) is None


@pytest.mark.parametrize("n_rows", [200, 1_000, 5_000])
def test_rows_without_repeats_have_no_clusters(n_rows: int) -> None:
    rows, _ = machines(n_rows, 1)
    assert row_clusters(rows, contract) is None


def patients(n_rows: int, times: int, moved: float) -> tuple[pd.DataFrame, np.ndarray, ModelContract]:
    """Rows of six measured values, of patients that come `times` times in any order."""
    names = [f"value_{number}" for number in range(6)]
    inputs = tuple(Feature(name, "float", 0, 1e6, "", "", 1) for name in names)
    rng = np.random.default_rng(1)
    visits = rng.permutation(np.repeat(np.arange(n_rows // times), times))
    values = rng.lognormal(1.0, 0.7, (n_rows // times, 6))[visits] * np.exp(moved * rng.normal(size=(n_rows, 6)))
    use_case = ModelContract(name="patients", description="", label=Label("ill", ""), inputs=inputs)
    return pd.DataFrame(values, columns=names), visits, use_case


@pytest.mark.parametrize("moved", [0.0, 0.02])
@pytest.mark.parametrize("times", [2, 5])
def test_a_recurring_row_is_found_by_its_inputs_also_if_they_have_moved(times: int, moved: float) -> None:
    rows, visits, use_case = patients(1_000, times, moved)
    found = row_clusters(rows, use_case)
    assert found is not None
    pairs = pd.DataFrame({"found": found, "true": visits})
    share_found = (pairs.groupby("true")["found"].nunique() == 1).mean()
    share_pure = (pairs.groupby("found")["true"].nunique() == 1).mean()
    assert min(share_found, share_pure) > 0.9


def test_few_copies_change_nothing() -> None:
    rows, _ = machines(1_000, 1)
    some = pd.concat([rows, rows.iloc[:20]], ignore_index=True)
    assert row_clusters(some, contract) is None


def test_inputs_that_are_equal_by_chance_are_no_entities() -> None:
    rows, use_case = coarse(500)
    assert rows.duplicated().mean() > 0.9
    assert row_clusters(rows, use_case) is None


def test_a_contract_may_say_that_equal_inputs_are_different_cases() -> None:
    rows, _ = machines(1_000, 5)
    assert row_clusters(rows, replace(contract, equal_inputs_are_one_case=False)) is None


def test_a_key_decides_what_inputs_do_not_show() -> None:
    rows, _ = machines(300, 1)
    keyed = rows.assign(**{ENTITY: [f"m{number % 60}" for number in range(300)]})
    found = row_clusters(keyed, WITH_KEY)
    assert found is not None
    assert n_entities(found) == 60
    assert row_clusters(rows, WITH_KEY) is None


def test_a_row_without_a_key_is_its_own() -> None:
    rows, _ = machines(300, 1)
    keyed = rows.assign(**{ENTITY: ["m1"] * 100 + [None] * 200})
    found = row_clusters(keyed, WITH_KEY)
    assert found is not None
    assert n_entities(found) == 201


def test_an_input_may_be_the_key() -> None:
    rows, _ = machines(300, 1)
    keys = entity_keys(rows.assign(restarts=np.arange(300) % 7), replace(contract, entity="restarts"))
    assert keys is not None
    assert len(set(keys)) == 7


def test_a_key_decides_what_recurs_in_other_rows_and_inputs_do_where_there_is_none() -> None:
    rows, _ = machines(300, 1)
    first, second = rows.iloc[:200].assign(**{ENTITY: None}), rows.iloc[200:].assign(**{ENTITY: None})
    first.loc[first.index[:10], ENTITY], second.loc[second.index[:1], ENTITY] = "m1", "m1"
    first.loc[first.index[20], list(contract.feature_names)] = second.loc[
        second.index[5], list(contract.feature_names)
    ].to_numpy()
    found = recurs_in(first, second, WITH_KEY)
    assert list(np.flatnonzero(found)) == [*range(10), 20]


def test_copies_are_worth_one_row() -> None:
    clusters = np.repeat(np.arange(100), 5)
    values = np.random.default_rng(1).normal(size=100)[clusters]
    assert copies_effect(clusters) == 5.0
    assert design_effect(values, clusters) == pytest.approx(5.0, rel=0.05)


def test_rows_of_an_entity_that_are_not_alike_are_worth_what_they_are() -> None:
    clusters = np.repeat(np.arange(400), 5)
    values = np.random.default_rng(1).normal(size=2_000)
    assert design_effect(values, clusters) < 1.2
    assert design_effect(values, None) == 1.0


def test_where_few_entities_differ_rows_count_as_copies() -> None:
    clusters = np.repeat(np.arange(200), 5)
    values = np.zeros(1_000)
    values[[0, 7, 13, 25]] = 1.0
    assert design_effect(values, clusters) == 5.0


def test_a_mean_s_variance_in_clusters_is_as_often_larger_as_the_effect_says() -> None:
    rng = np.random.default_rng(1)
    clusters = np.repeat(np.arange(100), [2] * 50 + [8] * 50)
    shared = rng.normal(size=(2_000, 100))[:, clusters] + rng.normal(size=(2_000, len(clusters)))
    effects = [design_effect(values, clusters) for values in shared[:200]]
    assert np.mean(effects) == pytest.approx(len(clusters) * shared.mean(axis=1).var() / shared.var(), rel=0.1)


def test_sums_of_clusters_are_in_the_order_of_their_ids() -> None:
    clusters = np.array([1, 0, 1])
    assert list(cluster_sums(np.array([1.0, 2.0, 3.0]), clusters)) == [2.0, 4.0]
    assert cluster_sums(np.ones((3, 2)), clusters).tolist() == [[1.0, 1.0], [2.0, 2.0]]


def test_a_part_without_repeats_has_no_clusters() -> None:
    clusters = np.array([0, 0, 1, 2])
    assert within(clusters, np.array([True, False, True, True])) is None
    assert within(clusters, np.array([True, True, False, True])) is not None
    assert within(None, np.array([True])) is None


def test_a_sentence_says_what_rows_are_worth() -> None:
    clusters = np.repeat(np.arange(100), 5)
    assert worth(500, clusters, 5.0) == " (500 rows of 100 entities, worth 100 independent rows)"
    assert worth(500, None, 1.0) == ""


def test_values_that_no_contract_allows_are_no_error() -> None:
    rows, _ = machines(200, 2)
    rows.loc[:5, "temperature_c"] = np.inf
    rows.loc[6:8, "load_ratio"] = -np.inf
    assert row_clusters(rows, contract) is not None
