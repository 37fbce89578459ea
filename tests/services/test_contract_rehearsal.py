"""The rehearsal of a bootstrap finds each fault that would stop one, and says so in a sentence."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from selfheal.adapters.datasets import Dataset
from selfheal.domain.contract import TRUE_LABEL, Columns, FloatArray, ModelContract, Scenario
from selfheal.services.contract_rehearsal import check_contract, column_summary
from selfheal.settings import Settings, load_settings
from tests.toy_use_case import contract, derive

SETTINGS = load_settings(min_auc=0.6)
ROWS = contract.synthesize(2_000, 1)


def data(**columns: Any) -> Dataset:
    return Dataset(ROWS.assign(**columns), "real", "machines.csv", "digest")


def found(
    changed: ModelContract, level: str, dataset: Dataset | None = None, settings: Settings = SETTINGS
) -> list[str]:
    return [one.text for one in check_contract(changed, settings, dataset) if one.level == level]


def having(**changes: Any) -> ModelContract:
    return dataclasses.replace(contract, **changes)


def pipeline_of(classifier: Callable[[], Any]) -> Callable[[int], Any]:
    def build(seed: int) -> Any:
        from sklearn.impute import SimpleImputer
        from sklearn.pipeline import Pipeline

        return Pipeline([("impute", SimpleImputer()), ("classify", classifier())])

    return build


def tree() -> Any:
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(max_depth=3)


def support_vectors() -> Any:
    from sklearn.svm import LinearSVC

    return LinearSVC()


def strain(values: Any) -> Callable[..., Any]:
    return lambda columns: {"strain": values(columns)}


def test_a_sound_contract_with_its_data_has_no_problem() -> None:
    assert found(contract, "problem", data()) == []
    assert any("explained exactly" in text for text in found(contract, "ok", data()))


def test_a_contract_without_a_stand_in_is_explained_as_well() -> None:
    alone = having(synthesize=None)
    assert any("explained exactly" in text for text in found(alone, "ok", data()))


@pytest.mark.parametrize(
    ("derivation", "told"),
    [
        (lambda columns: columns["speed"], "derive fails on rows within the limits: KeyError: 'speed'"),
        (lambda columns: {}, "'strain' is declared, but derive does not return it"),
        (lambda columns: {**derive(columns), "heat": columns["restarts"]}, "'heat' is returned by derive, but not"),
        (strain(lambda c: 1.0), "has shape () for 16 rows"),
        (strain(lambda c: c["restarts"] - c["restarts"].mean()), "depends on the rows beside it"),
        (strain(lambda c: 1.0 / c["load_ratio"]), "becomes infinite"),
        (strain(lambda c: c["temperature_c"]), "can be missing, but is not declared"),
        (strain(lambda c: c["load_ratio"] * 1e38), "reaches 5e+38 within the limits of the inputs, beyond 3.4028"),
    ],
)
def test_a_derivation_that_would_fail_later_is_found(derivation: Any, told: str) -> None:
    (problem,) = found(having(derive=derivation), "problem")
    assert told in problem


def test_a_derived_int_that_is_not_whole_is_found() -> None:
    whole = tuple(dataclasses.replace(feature, kind="int") for feature in contract.derived)
    (problem,) = found(having(derived=whole), "problem")
    assert "is not always whole" in problem


def test_a_derived_int_that_grows_beyond_its_column_is_found() -> None:
    whole = tuple(dataclasses.replace(feature, kind="int") for feature in contract.derived)
    (problem,) = found(having(derived=whole, derive=lambda c: {"strain": c["restarts"] * 9e6}), "problem")
    assert "'strain' reaches 9e+09 within the limits of the inputs, beyond 2,147,483,647" in problem
    assert problem.endswith("declare it as a float, or narrow their limits")


def test_rows_of_a_file_that_a_bootstrap_would_leave_out_are_left_out_here_too() -> None:
    def rare(columns: Columns) -> dict[str, FloatArray]:
        strain = derive(columns)["strain"]
        strain[columns["load_ratio"] == 4.75] = np.inf
        return {"strain": strain}

    load = ROWS["load_ratio"].to_numpy().copy()
    load[:3] = 4.75
    assert found(having(derive=rare), "problem", data(load_ratio=load)) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"param_grid": {"classify__c": (1,)}}, "classify__c, which the estimator does not know"),
        ({"build_estimator": lambda seed: tree(), "param_grid": {}}, "wrap it: Pipeline([('classify', DecisionTree"),
        ({"build_estimator": pipeline_of(support_vectors), "param_grid": {}}, "LinearSVC of build_estimator has no"),
        ({"build_estimator": lambda seed: 1 / 0}, "build_estimator fails: ZeroDivisionError"),
    ],
)
def test_an_estimator_that_cannot_be_tuned_is_found(changes: dict[str, Any], told: str) -> None:
    (problem,) = found(having(**changes), "problem")
    assert told in problem


def test_types_that_the_api_would_not_open_are_named_unless_the_contract_trusts_them() -> None:
    trees = having(build_estimator=pipeline_of(tree), param_grid={})
    (problem,) = found(trees, "problem", data())
    assert "sklearn.tree._tree.Tree" in problem
    trusting = dataclasses.replace(trees, trusted_types=("sklearn.tree._tree.Tree",))
    assert found(trusting, "problem", data()) == []
    assert any("serve without explanations" in text for text in found(trusting, "note", data()))


def test_a_model_that_the_gates_would_reject_is_foreseen() -> None:
    (problem,) = found(contract, "problem", data(), load_settings(min_auc=0.99))
    assert "gate auc_roc: AUC-ROC 0." in problem
    assert "0.99 wanted; find better features, or set MIN_AUC and HARM_MIN_AUC to what is useful" in problem


def test_the_fits_of_a_rehearsal_are_counted() -> None:
    told: list[tuple[int, int]] = []
    check_contract(contract, SETTINGS, data(), lambda done, all_fits: told.append((done, all_fits)))
    assert told[-1][0] == told[-1][1] > 0


def test_a_feature_that_gives_the_label_away_is_found() -> None:
    (problem,) = found(contract, "problem", data(restarts=ROWS[TRUE_LABEL].astype(float)))
    assert "'restarts' alone tells the classes apart" in problem


def test_it_says_what_traffic_and_labels_the_loop_will_need() -> None:
    notes = " ".join(found(contract, "ok", data()))
    assert "a retraining will ask for at least 667 labelled predictions" in notes
    assert "it judges nothing with less than 6.7 a day" in notes
    rare = np.zeros(len(ROWS), dtype=np.int64)
    rare[:: len(ROWS) // 60] = 1
    notes = " ".join(found(contract, "ok", data(**{TRUE_LABEL: rare})))
    n_labels = int(re.search(r"at least ([0-9,]+) labelled", notes)[1].replace(",", ""))  # type: ignore[index]
    assert 1_000 < n_labels < 1_300, "ten of a class of 3 % in the newest 30 %"


def test_rows_of_one_class_are_found() -> None:
    (problem,) = found(contract, "problem", data(**{TRUE_LABEL: 0}))
    assert "rows to fit and tune on need 10 more of class 1 (there are 0)" in problem
    assert "rows to be judged on (the newest) need 10 more of class 1 (there are 0)" in problem
    assert "add labelled rows" in problem


def test_a_scenario_whose_rows_the_api_would_refuse_is_found() -> None:
    melting = Scenario("melting", "", lambda inputs, labels, rng: (inputs.assign(load_ratio=9.0), labels))
    (problem,) = found(having(scenarios=(melting,)), "problem", data())
    assert problem.startswith("the scenario 'melting' makes rows that the API would refuse")


def test_a_constant_column_and_rows_that_are_alike_are_noted() -> None:
    assert "load_ratio is the same in all rows: nothing can be learned from it" in found(
        contract, "note", data(load_ratio=1.0)
    )
    coarse = data(temperature_c=ROWS["temperature_c"].fillna(60).round(-1), load_ratio=ROWS["load_ratio"].round(1))
    assert any("a later row has the same inputs, or nearly" in text for text in found(contract, "note", coarse))


def test_the_limits_stand_beside_what_the_rows_hold() -> None:
    first = column_summary(contract, ROWS)[0]
    assert (first["input"], first["limits"], first["may_be_missing"]) == ("temperature_c", "-50 to 300", "yes")
    assert first["missing_pct"] == round(100 * ROWS["temperature_c"].isna().mean(), 2)
    assert first["min"] == np.nanmin(ROWS["temperature_c"])
