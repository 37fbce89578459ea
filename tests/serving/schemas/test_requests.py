"""The request model follows the contract: names, aliases, types, limits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from selfheal.adapters.postgres.embedded import EmbeddedServer
from selfheal.credit_risk import contract as credit_risk
from selfheal.domain.contract import TRUE_LABEL, Feature, ModelContract
from selfheal.domain.entity_key import pseudonym
from serving.champion.holder import ready_champion
from serving.schemas.problems import NOT_WHOLE, ProblemError
from serving.schemas.reading import Refused
from serving.schemas.requests import attribute_of, example_row, row_model
from serving.scoring.request_parser import RequestParser
from tests import kinds_use_case, toy_use_case
from tests.builders import model_version
from tests.conftest import settings_for
from tests.serving.running import Api, api_in_thread, journal_rows
from tests.serving.scoring.test_explanations import holder_of
from tests.toy_use_case import contract, keyed

CONTRACTS = (credit_risk, toy_use_case.contract)
CreditRow = row_model(credit_risk)

KAGGLE_ROW = {
    "RevolvingUtilizationOfUnsecuredLines": 0.766126609,
    "age": 45,
    "NumberOfTime30-59DaysPastDueNotWorse": 2,
    "DebtRatio": 0.802982129,
    "MonthlyIncome": 9120,
    "NumberOfOpenCreditLinesAndLoans": 13,
    "NumberOfTimes90DaysLate": 0,
    "NumberRealEstateLoansOrLines": 6,
    "NumberOfTime60-89DaysPastDueNotWorse": 0,
    "NumberOfDependents": 2,
}
CANONICAL_ROW = dict(zip(credit_risk.input_names, KAGGLE_ROW.values(), strict=True))


CREDIT = RequestParser(credit_risk)
OTHER_FIELDS = {"request_source", "prediction_id", "explain"}


def values(row: dict[str, Any]) -> dict[str, Any]:
    return CreditRow.model_validate(row).model_dump(exclude=OTHER_FIELDS, by_alias=True)


def test_a_row_with_kaggles_column_names_is_accepted() -> None:
    assert values(KAGGLE_ROW) == values(CANONICAL_ROW) == CANONICAL_ROW


def test_kaggles_column_names_may_be_spelled_with_underscores() -> None:
    assert values({name.replace("-", "_"): value for name, value in KAGGLE_ROW.items()}) == CANONICAL_ROW


def test_our_own_names_may_be_spelled_with_hyphens() -> None:
    assert values({name.replace("_", "-"): value for name, value in CANONICAL_ROW.items()}) == CANONICAL_ROW


def test_a_feature_under_two_names_at_once_is_refused() -> None:
    with pytest.raises(ValidationError, match="NumberOfDependents"):
        CreditRow.model_validate(CANONICAL_ROW | {"NumberOfDependents": 3})


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.name)
def test_the_contracts_own_example_is_accepted(contract: ModelContract) -> None:
    assert row_model(contract).model_validate(example_row(contract)).model_dump(
        exclude=OTHER_FIELDS, by_alias=True
    ) == (example_row(contract))


@pytest.mark.parametrize(
    ("contract", "feature"),
    [(contract, feature) for contract in CONTRACTS for feature in contract.inputs],
    ids=lambda value: value.name,
)
def test_the_limits_themselves_are_accepted_and_nothing_beyond(contract: ModelContract, feature: Feature) -> None:
    model, row = row_model(contract), example_row(contract)
    for limit in (feature.lower, feature.upper):
        assert getattr(model.model_validate(row | {feature.name: limit}), attribute_of(feature.name)) == limit
    step = 1 if feature.kind == "int" else 1e-3
    for beyond in (feature.lower - step, feature.upper + step):
        with pytest.raises(ValidationError, match=feature.name):
            model.model_validate(row | {feature.name: beyond})


@pytest.mark.parametrize("in_batch", [False, True])
@given(st.floats(min_value=0, max_value=98) | st.sampled_from([45.0, 45.00000001, 1 - 2**-53, 5e-324]))
def test_a_count_is_a_whole_number(in_batch: bool, value: float) -> None:
    """Exactly: one that is off by a rounding is refused too, and would else be logged as another number."""
    row = CANONICAL_ROW | {"times_90_days_late": value}
    if in_batch:
        ((parsed,),) = CREDIT.batch(json.dumps({"instances": [row]}).encode())
        wrong = parsed.problems if isinstance(parsed, Refused) else []
    else:
        try:
            CREDIT.row(json.dumps(row).encode())
            wrong = []
        except ProblemError as problem:
            wrong = problem.extra["errors"]
    expected = [] if value.is_integer() else [{"field": "times_90_days_late", "message": NOT_WHOLE}]
    assert wrong == expected


@pytest.mark.parametrize("feature", credit_risk.inputs, ids=lambda feature: feature.name)
def test_only_a_nullable_feature_may_be_missing(feature: Feature) -> None:
    without = {name: value for name, value in CANONICAL_ROW.items() if name != feature.name}
    if feature.is_nullable:
        assert values(without)[feature.name] is None
        assert values(without | {feature.name: None})[feature.name] is None
    else:
        for row in (without, without | {feature.name: None}):
            with pytest.raises(ValidationError, match=feature.name):
                values(row)


# Clients of old


@pytest.fixture(scope="module")
def credit_api(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API of the shipped use case. Its model is fitted here and put in, past the registry."""
    data_dir = tmp_path_factory.mktemp("credit") / "data"
    settings = settings_for(server, data_dir, "credit", use_case="selfheal.credit_risk:contract")
    with api_in_thread(settings) as api:
        rows = credit_risk.synthesize(2_000, 20)
        pipeline = credit_risk.build_estimator(20)
        pipeline.fit(credit_risk.feature_frame(rows).to_numpy(dtype="float64"), rows[TRUE_LABEL].to_numpy())
        version = model_version(model_name=credit_risk.name, contract_hash=credit_risk.hash)
        holder_of(api).current = ready_champion(version, pipeline, credit_risk)
        yield api


@pytest.mark.parametrize(
    "row",
    [
        KAGGLE_ROW,
        {name.replace("-", "_"): value for name, value in KAGGLE_ROW.items()},
        {name.replace("_", "-"): value for name, value in CANONICAL_ROW.items()},
    ],
    ids=["with Kaggle's names", "with underscores in them", "with hyphens in ours"],
)
def test_the_body_that_clients_have_always_sent_still_scores(credit_api: Api, row: dict[str, Any]) -> None:
    expected = credit_api.post("/predict", CANONICAL_ROW).json()["probability"]
    answer = credit_api.post("/predict", row)
    assert answer.status_code == 200, answer.text
    assert answer.json()["probability"] == expected
    batch = credit_api.post("/predict/batch", {"instances": [row, CANONICAL_ROW]}).json()
    assert [one["probability"] for one in batch["predictions"]] == [expected] * 2
    logged = {one["prediction_id"]: one for one in journal_rows(credit_api.settings)}[answer.json()["prediction_id"]]
    assert {name: float(logged[name]) for name in CANONICAL_ROW} == CANONICAL_ROW


def test_the_documentation_names_what_else_a_feature_may_be_called(credit_api: Api) -> None:
    document = credit_api.client.get("/openapi.json").json()
    properties = document["components"]["schemas"]["PredictRequest"]["properties"]
    for name, feature in zip(KAGGLE_ROW, credit_risk.inputs, strict=True):
        if name != feature.name:
            assert f"`{name}`" in properties[feature.name]["description"]


# The key of an entity

SECRET = b"a secret of the tests"
KEYED = RequestParser(keyed, lambda: SECRET)
MACHINE = dict(example_row(keyed))


def entity_of(key: Any, parser: RequestParser = KEYED) -> str | None:
    return parser.row(json.dumps(MACHINE | {"machine": key}).encode()).entity


def test_a_key_is_text_or_a_whole_number_and_kept_as_its_pseudonym() -> None:
    assert entity_of("A-1") == pseudonym("A-1", SECRET)
    assert entity_of(17) == entity_of("17") == pseudonym(17, SECRET)
    assert len({entity_of(key) for key in ("A-1", "A-2", 17)}) == 3


@pytest.mark.parametrize("key", ["", "x" * 65, 2**63, True, 1.5, None, ["A-1"]])
def test_a_key_of_another_kind_or_size_is_refused(key: Any) -> None:
    with pytest.raises(ProblemError) as refused:
        entity_of(key)
    assert all("machine" in problem["field"] for problem in refused.value.extra["errors"])


def test_a_key_is_demanded_only_where_the_contract_requires_it() -> None:
    row = json.dumps(MACHINE).encode()
    with pytest.raises(ProblemError):
        KEYED.row(row)
    optional = RequestParser(replace(keyed, entity_is_required=False), lambda: SECRET)
    assert optional.row(row).entity is None


def test_a_contract_without_a_key_knows_no_field_for_it() -> None:
    with pytest.raises(ProblemError):
        RequestParser(contract).row(json.dumps(MACHINE | {"machine": "A-1"}).encode())
    assert "machine" not in row_model(contract).model_json_schema()["properties"]
    assert "machine" in row_model(keyed).model_json_schema()["properties"]


FLAGGED = RequestParser(kinds_use_case.contract)
FLAGGED_ROW = example_row(kinds_use_case.contract)


def test_a_bool_is_true_or_false_and_missing_only_where_it_may_be() -> None:
    row = FLAGGED.row(json.dumps(FLAGGED_ROW | {"is_paperless": False, "has_partner": None}).encode())
    assert row.values[2:4] == (False, None)


@pytest.mark.parametrize("wrong", [0, 1, 1.0, "true", "yes", "", [], None])
def test_a_bool_that_is_something_else_is_refused_with_the_remedy(wrong: object) -> None:
    with pytest.raises(ProblemError) as refused:
        FLAGGED.row(json.dumps(FLAGGED_ROW | {"PaperlessBilling": wrong, "is_paperless": wrong}).encode())
    assert refused.value.status == 422
    with pytest.raises(ProblemError, match="is_paperless: Input should be true or false: write it without quotes"):
        FLAGGED.row(json.dumps(FLAGGED_ROW | {"is_paperless": wrong}).encode())


def test_the_documentation_says_that_a_bool_is_one() -> None:
    properties = row_model(kinds_use_case.contract).model_json_schema()["properties"]
    assert properties["is_paperless"]["type"] == "boolean"
    assert {"type": "boolean"} in properties["has_partner"]["anyOf"]


def test_a_category_is_any_text_as_it_came() -> None:
    for level in (
        "month-to-month",
        "never seen",
        "Cafe\u0301, 50% \u201cx\u201d [1]",
        "3",
        "a, b, c, d" * 9,
        " as it came ",
    ):
        row = FLAGGED.row(json.dumps(FLAGGED_ROW | {"plan": level, "region": None}).encode())
        assert row.values[4:] == (level, None)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (3, "Input should be a text: write it in quotes, also where it looks like a number"),
        (True, "Input should be a text: write it in quotes"),
        (None, "Input should be a text: write it in quotes"),
        ([], "Input should be a text: write it in quotes"),
        ("", "at least 1 character"),
        (" \u3000", "Input should be a text that is not blank and has no control characters; what is missing is null"),
        ("a\nb", "Input should be a text that is not blank and has no control characters"),
        ("x" * 129, "at most 128 characters"),
    ],
)
def test_a_category_that_is_no_name_is_refused_with_the_remedy(wrong: object, said: str) -> None:
    with pytest.raises(ProblemError, match=f"plan: .*{said}"):
        FLAGGED.row(json.dumps(FLAGGED_ROW | {"plan": wrong}).encode())


def test_a_row_with_commas_in_its_levels_is_still_checked_for_unknown_and_repeated_fields() -> None:
    body = json.dumps(FLAGGED_ROW | {"plan": "a, b"})
    with pytest.raises(ProblemError, match="typo"):
        FLAGGED.row(body.replace("{", '{"typo": 1, ', 1).encode())
    with pytest.raises(ProblemError, match="given more than once"):
        FLAGGED.row(body.replace("{", '{"region": "x", ', 1).encode())


def test_rows_of_a_batch_may_have_braces_and_commas_in_their_levels() -> None:
    levels = ["a}, {b", "a, b", "],[", "}"] * 200
    body = json.dumps({"instances": [FLAGGED_ROW | {"plan": level} for level in levels]}).encode()
    rows = [row for piece in FLAGGED.batch(body) for row in piece]
    assert [row.values[4] for row in rows if not isinstance(row, Refused)] == levels


def test_the_documentation_lists_the_known_levels_and_takes_any_other() -> None:
    schema = row_model(kinds_use_case.contract).model_json_schema()
    known, other = schema["properties"]["plan"]["anyOf"]
    assert known == {"enum": ["month-to-month", "one year", "two years"]}
    assert (other["type"], other["maxLength"]) == ("string", 128)
    assert schema["examples"][0]["plan"] == "month-to-month"
