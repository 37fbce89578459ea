"""Rules of the contract: what it accepts as a name, what it refuses to be, what its hash stands for."""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfheal.domain.contract import (
    AdverseReason,
    Columns,
    DerivedFeature,
    Feature,
    FloatArray,
    Label,
    ModelContract,
    Scenario,
    Segment,
    load_contract,
)
from selfheal.domain.names import TAKEN_NAMES
from selfheal.kit.errors import ConfigurationError
from tests.toy_use_case import contract, derive, keyed

Change = Callable[[ModelContract], ModelContract]


def changed(**changes: object) -> ModelContract:
    return dataclasses.replace(contract, **changes)  # type: ignore[arg-type]


def with_first_input(**changes: object) -> ModelContract:
    first = dataclasses.replace(contract.inputs[0], **changes)  # type: ignore[arg-type]
    return changed(inputs=(first, *contract.inputs[1:]))


def other_derivation(columns: Columns) -> dict[str, FloatArray]:
    return {"strain": derive(columns)["strain"] * 1.001}


def same_derivation_written_otherwise(columns: Columns) -> dict[str, FloatArray]:
    temperature = np.where(np.isnan(columns["temperature_c"]), 60.0, columns["temperature_c"])
    return {"strain": (temperature / 100.0) * columns["load_ratio"]}


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(changed(name="other"), id="name"),
        pytest.param(with_first_input(name="temperature_k"), id="input name"),
        pytest.param(with_first_input(kind="int", example=61), id="kind"),
        pytest.param(with_first_input(lower=-49.0), id="lower limit"),
        pytest.param(with_first_input(upper=299.0), id="upper limit"),
        pytest.param(with_first_input(is_nullable=False), id="nullable"),
        pytest.param(changed(inputs=contract.inputs[::-1]), id="order"),
        pytest.param(changed(derive=other_derivation), id="derivation"),
    ],
)
def test_the_hash_changes_with_what_the_model_sees(other: ModelContract) -> None:
    if other.input_names[0] == "temperature_k":
        other = dataclasses.replace(
            other, derive=lambda columns: derive({**columns, "temperature_c": columns["temperature_k"]})
        )
    assert other.hash != contract.hash


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(changed(description="other words"), id="description"),
        pytest.param(with_first_input(description="other words"), id="input description"),
        pytest.param(with_first_input(example=20.0), id="example"),
        pytest.param(with_first_input(unit="deg C"), id="unit"),
        pytest.param(with_first_input(aliases=("Temp",)), id="aliases"),
        pytest.param(changed(param_grid={"classify__C": (9.0,)}), id="grid"),
        pytest.param(changed(derive=same_derivation_written_otherwise), id="derivation written otherwise"),
    ],
)
def test_the_hash_stays_with_prose_and_with_the_same_results(other: ModelContract) -> None:
    assert other.hash == contract.hash


def test_the_hash_is_the_same_in_every_process() -> None:
    assert contract.hash == changed().hash
    assert len(contract.hash) == 64


@pytest.mark.parametrize("name", ["temperature_c", "temperature-c", "Temp-C", "Temp_C", " Temp-C "])
def test_an_input_goes_by_its_name_and_its_aliases_with_dash_or_underscore(name: str) -> None:
    assert contract.canonical_name(name) == "temperature_c"


@pytest.mark.parametrize("name", ["temp_c", "strain", "failed", "", "temperature c"])
def test_any_other_name_is_no_input(name: str) -> None:
    assert contract.canonical_name(name) is None


@pytest.mark.parametrize("name", ["true_label", "true-label", "failed", "Failed-24h", "Failed_24h"])
def test_the_label_goes_by_its_names(name: str) -> None:
    assert contract.is_label_name(name)


def test_an_input_is_not_a_label() -> None:
    assert not any(contract.is_label_name(name) for name in contract.feature_names)


def an_input(name: str, *aliases: str) -> Feature:
    return Feature(name, "float", 0.0, 1.0, "ratio", "", 0.5, aliases=aliases)


@pytest.mark.parametrize(
    ("changes", "double"),
    [
        pytest.param({"inputs": (*contract.inputs, an_input("restarts"))}, "restarts", id="two inputs"),
        pytest.param({"inputs": (*contract.inputs, an_input("strain"))}, "strain", id="input and derived"),
        pytest.param({"inputs": (*contract.inputs, an_input("heat", "Temp_C"))}, "Temp_C", id="two aliases"),
        pytest.param({"inputs": (*contract.inputs, an_input("heat", "load-ratio"))}, "load_ratio", id="alias and name"),
        pytest.param({"inputs": (*contract.inputs, an_input("heat", "strain"))}, "strain", id="alias and derived"),
        pytest.param({"inputs": (*contract.inputs, an_input("failed"))}, "failed", id="input and label"),
        pytest.param({"label": Label("broke", "", aliases=("Temp-C",))}, "Temp_C", id="label alias and alias"),
        pytest.param(
            {"derived": (*contract.derived, DerivedFeature("true_label", "float", "", "", ""))},
            "true_label",
            id="label",
        ),
    ],
)
def test_a_name_with_two_meanings_is_refused(changes: dict[str, object], double: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"'machine_failure' declares \['{double}'\] more than once"):
        changed(**changes)


def test_features_are_the_inputs_and_then_the_derived_ones() -> None:
    assert contract.feature_names == ("temperature_c", "load_ratio", "restarts", "strain")
    assert contract.kinds["restarts"] == "int"
    assert contract.kinds["strain"] == "float"


def test_matrix_and_frame_hold_the_same_numbers_in_the_same_order() -> None:
    rows = contract.synthesize(50, 1).set_axis(range(100, 150))
    frame = contract.feature_frame(rows)
    matrix = contract.matrix({name: rows[name].to_numpy() for name in contract.input_names})
    np.testing.assert_array_equal(frame.to_numpy(), matrix)
    assert tuple(frame.columns) == contract.feature_names
    assert list(frame.index) == list(rows.index)


def test_one_row_alone_gives_what_it_gives_among_others() -> None:
    rows = contract.synthesize(20, 2)
    together = contract.feature_frame(rows)
    alone = [contract.feature_frame(rows.iloc[[i]]).to_numpy()[0] for i in range(len(rows))]
    np.testing.assert_array_equal(together.to_numpy(), alone)


def test_an_unknown_scenario_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigurationError, match="no scenario 'flood'; it has: overheating"):
        contract.scenario("flood")


def test_a_setting_names_the_contract() -> None:
    assert load_contract("tests.toy_use_case:contract") is contract


@pytest.mark.parametrize(
    ("use_case", "problem"),
    [
        ("tests.toy_use_case", "not of the form package.module:contract"),
        (":contract", "not of the form package.module:contract"),
        ("tests.no_such_module:contract", "cannot be loaded"),
        ("tests.toy_use_case:no_such_name", "cannot be loaded"),
        ("tests.toy_use_case:derive", "is a function, not a ModelContract"),
    ],
)
def test_a_setting_that_names_no_contract_is_refused(use_case: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        load_contract(use_case)
    assert repr(use_case) in str(caught.value)


def test_importing_the_contract_imports_no_framework() -> None:
    """Every process imports it, and pandas or scikit-learn would cost each of them seconds."""
    code = (
        "import sys, selfheal.credit_risk; print(sorted({'pandas', 'sklearn', 'pandera', 'mlflow'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"


# What a contract may leave out, and what it may not say

MINIMAL = ModelContract(
    name="minimal",
    description="",
    label=Label("fell", ""),
    inputs=(Feature("height_m", "float", 0, 100, "m", "Height", 3.0),),
)


def test_name_description_label_and_inputs_are_enough() -> None:
    assert MINIMAL.feature_names == ("height_m",)
    assert MINIMAL.default_csv == "minimal.csv"
    assert set(MINIMAL.param_grid) <= set(MINIMAL.build_estimator(0).get_params())
    assert MINIMAL.matrix({"height_m": np.array([1.0, 2.0])}).tolist() == [[1.0], [2.0]]


def test_a_contract_without_scenarios_cannot_be_lived_through() -> None:
    assert contract.first_scenario.name == "overheating"
    with pytest.raises(ConfigurationError, match="'minimal' has no scenario"):
        _ = MINIMAL.first_scenario


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        pytest.param({"name": "Temp"}, "'Temp' cannot name a feature", id="capital letter"),
        pytest.param({"name": "temp-c"}, "'temp-c' cannot name a feature", id="dash"),
        pytest.param({"name": "probability"}, "a column of the platform's own", id="taken name"),
        pytest.param({"name": "explain"}, "is a field of every request", id="field of a request"),
        pytest.param({"name": "xmin"}, "another meaning in Postgres", id="system column"),
        pytest.param({"aliases": ("request-source",)}, "no alias of 'temperature_c'", id="field as alias"),
        pytest.param({"aliases": (" ",)}, "it is blank", id="blank alias"),
        pytest.param({"aliases": ("Temp\nC",)}, "cannot be printed", id="line break in an alias"),
        pytest.param({"upper": 1e39}, "use another unit", id="more than a tree compares"),
        pytest.param({"kind": "text"}, "use 'float' or 'int'", id="kind"),
        pytest.param({"lower": 300.0}, "limits 300 to 300", id="no room"),
        pytest.param({"upper": float("inf")}, "two finite, rising numbers", id="infinite"),
        pytest.param({"lower": float("nan")}, "two finite, rising numbers", id="not a number"),
        pytest.param({"example": 301.0}, "example 301 .* is not within -50 to 300", id="example"),
        pytest.param({"kind": "int"}, "not whole numbers", id="int with a fraction"),
        pytest.param({"kind": "int", "example": 1, "upper": 2.0**31}, "declare it as a float", id="int too large"),
    ],
)
def test_an_impossible_input_is_refused_with_the_remedy(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as caught:
        with_first_input(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        pytest.param({"inputs": ()}, "has no inputs", id="no inputs"),
        pytest.param({"segments": (Segment("rpm", (1.0,), "speed"),)}, "'rpm', which is no feature", id="segment"),
        pytest.param({"segments": (Segment("restarts", (2.0, 1.0), "s"),)}, "they must rise", id="edges fall"),
        pytest.param({"segments": (Segment("restarts", (), "s"),)}, "they must rise", id="no edges"),
        pytest.param({"scenarios": contract.scenarios * 2}, "'overheating' is there already", id="scenario twice"),
        pytest.param(
            {"scenarios": (dataclasses.replace(contract.scenarios[0], name="calm"),)},
            "'calm' is there already",
            id="scenario named calm",
        ),
    ],
)
def test_a_contract_that_contradicts_itself_is_refused(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        changed(**changes)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        pytest.param(lambda: Feature(name="job", kind="int"), "Feature 'job': lower, upper, unit, desc", id="few"),
        pytest.param(lambda: an_input_of(kind="text"), "kind is 'text', use 'float' or 'int'", id="kind"),
        pytest.param(lambda: an_input_of(kind=["a"]), "kind is ['a'], use 'float' or 'int'", id="kind of a list"),
        pytest.param(lambda: an_input_of(lower=None), "lower is None, use a number", id="no number"),
        pytest.param(lambda: an_input_of(upper="1"), "upper is '1', use a number", id="text as a number"),
        pytest.param(
            lambda: an_input_of(categories=("a",)), "unknown argument 'categories' (known are name", id="unknown"
        ),
        pytest.param(
            lambda: an_input_of(aliases="Temp-C"),
            "aliases is 'Temp-C', use several in brackets, each followed by a comma: (a text in quotes,)",
            id="one alias",
        ),
        pytest.param(lambda: an_input_of(is_nullable="no"), "is_nullable is 'no', use True or False", id="flag"),
        pytest.param(lambda: an_input_of(adverse_reason="R1"), "use AdverseReason(...), or None", id="reason"),
        pytest.param(
            lambda: an_input_of(adverse_reason=AdverseReason("R1")),  # type: ignore[call-arg]
            "AdverseReason 'R1': text missing",
            id="reason without text",
        ),
        pytest.param(
            lambda: Feature("a", "float", 0, 1, "", "", 0, True, (), None, (), "more"),  # type: ignore[call-arg]
            "12 arguments, but only 11 are known",
            id="too many",
        ),
    ],
)
def test_an_argument_that_cannot_be_is_told_with_what_can(make: Callable[[], Feature], told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        changed(inputs=(make(),))
    message = str(caught.value)
    assert message.startswith("contract 'machine_failure': ")
    assert told in message
    assert "\n" not in message
    assert "__init__" not in message


def an_input_of(**arguments: Any) -> Feature:
    given = {"name": "heat", "kind": "float", "lower": 0, "upper": 1, "unit": "", "description": "", "example": 0}
    return Feature(**(given | arguments))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"label": "failed"}, "label is 'failed', use Label(...)"),
        ({"inputs": an_input("heat")}, "followed by a comma: (Feature(...),)"),
        ({"inputs": ("heat",)}, "inputs is ('heat',), use several in brackets"),
        ({"derived": (an_input("heat"),)}, "followed by a comma: (DerivedFeature(...),)"),
        ({"derived": (DerivedFeature("heat", "text", "", "", ""),)}, "DerivedFeature 'heat': kind is 'text', use"),  # type: ignore[arg-type]
        ({"derive": {"a": 1}}, "derive is {'a': 1}, use a function"),
        ({"build_estimator": None}, "build_estimator is None, use a function"),
        ({"param_grid": {"classify__C": 1.0}}, "use a mapping of names to lists of values"),
        (
            {"segments": (Segment("restarts", 2.0, "many"),)},
            "Segment 'many': edges is 2.0, use several in brackets, each followed by a comma: (a number,)",
        ),  # type: ignore[arg-type]
        ({"scenarios": (Scenario("flood", "", "wet"),)}, "Scenario 'flood': apply is 'wet', use a function"),  # type: ignore[arg-type]
        ({"name": None}, "contract None: name is None, use a text"),
    ],
)
def test_a_part_that_is_of_another_kind_is_told_with_the_right_one(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        changed(**changes)
    assert told in str(caught.value)


def test_all_wrong_arguments_of_a_contract_are_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        ModelContract(  # type: ignore[call-arg]
            name="bank",
            features=(),
            label=Label("y"),  # type: ignore[call-arg]
            inputs=(an_input_of(name="job", kind="text"), an_input_of(name="age", example=2)),
        )
    assert str(caught.value).startswith(
        "contract 'bank': description missing; unknown argument 'features' (known are name"
    )
    for part in ("Label 'y': description missing", "Feature 'job': kind is", "example 2 of 'age' is not within 0 to 1"):
        assert part in str(caught.value)


def test_a_declaration_still_copies_compares_and_travels() -> None:
    first = contract.inputs[0]
    assert dataclasses.replace(first) == first == pickle.loads(pickle.dumps(first))
    assert changed(inputs=(pickle.loads(pickle.dumps(first)), *contract.inputs[1:])).hash == contract.hash


def test_the_taken_names_are_those_of_requests_tables_and_training_sets() -> None:
    import sqlalchemy

    from selfheal.adapters.postgres.tables import build_tables
    from selfheal.domain.retraining import dataset
    from serving.schemas.requests import RowBase

    columns = sqlalchemy.inspect(build_tables(MINIMAL).prediction_logs).columns
    beside = {column.name for column in columns} - {"height_m"}
    assert {*beside, *RowBase.model_fields, dataset.SPLIT, dataset.ORIGIN, dataset.WEIGHT} == TAKEN_NAMES


# Modules of the reader's own


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Writes a module into the folder that the test then runs in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(name: str, source: str) -> None:
        (tmp_path / f"{name}.py").write_text(source)

    return write


def test_a_module_in_the_working_directory_is_found(module: Callable[[str, str], None]) -> None:
    module("own_use_case", "from tests.toy_use_case import contract\n")
    assert load_contract("own_use_case:contract") is contract


def test_the_working_directory_takes_no_installed_modules_place(module: Callable[[str, str], None]) -> None:
    module("tomllib", "contract = None\n")
    with pytest.raises(ConfigurationError, match="has no attribute 'contract'"):
        load_contract("tomllib:contract")


@pytest.mark.parametrize(
    ("name", "source", "told"),
    [
        ("own_typo", "x = 1\ncontract = Contrct()\n", r"NameError: .*Contrct.*\(own_typo.py, line 2\)"),
        ("own_syntax", "contract = (\n", r"SyntaxError: .*own_syntax.py, line 1"),
        (
            "own_category",
            "from selfheal.domain.contract import Feature, Label, ModelContract\n"
            "inputs = (Feature('job', kind='text'), Feature('age', 'int', 0))\n"
            "contract = ModelContract('bank', 'Deposits', Label('y', 'taken'), inputs)\n",
            r"Feature 'job': lower, upper, .* kind is 'text', use 'float' or 'int'.* Feature 'age': upper, unit",
        ),
        (
            "own_refusal",
            "from tests.domain.test_contract import with_first_input\ncontract = with_first_input(kind='text')\n",
            "'text'",
        ),
    ],
)
def test_a_module_that_does_not_load_is_told_in_one_line_with_its_place(
    name: str, source: str, told: str, module: Callable[[str, str], None]
) -> None:
    module(name, source)
    with pytest.raises(ConfigurationError, match=told) as caught:
        load_contract(f"{name}:contract")
    assert "\n" not in str(caught.value)


# The key of an entity


def test_a_key_is_no_part_of_what_a_model_sees() -> None:
    assert keyed.hash == contract.hash
    assert keyed.input_names == contract.input_names
    assert (contract.has_entity_key, keyed.has_entity_key) == (False, True)
    assert not dataclasses.replace(contract, entity="restarts").has_entity_key


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Machine", "cannot name an entity"),
        ("prediction_id", "a name of the platform's own"),
        ("strain", "also the name of a feature"),
        ("failed", "alias or the label"),
    ],
)
def test_a_key_has_a_name_of_its_own(name: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        dataclasses.replace(contract, entity=name)


def test_a_key_is_not_required_without_a_name() -> None:
    with pytest.raises(ConfigurationError, match="entity_is_required without an entity"):
        dataclasses.replace(contract, entity_is_required=True)
