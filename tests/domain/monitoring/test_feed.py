"""Rules of the feed check: each sign of a broken sender by itself, and what is a change of the world instead."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from selfheal.domain.contract import Feature, FloatArray, Label, ModelContract
from selfheal.domain.monitoring.declarations import ROWS
from selfheal.domain.monitoring.feed import (
    MIN_ROWS,
    FeedCheck,
    FeedFindings,
    check_feed,
    feed_problems,
    spoiled_period,
)
from tests import builders
from tests.toy_use_case import contract

N_ROWS = 400


@pytest.fixture(scope="module")
def reference() -> pd.DataFrame:
    return contract.feature_frame(contract.synthesize(2_000, 1))


@pytest.fixture
def current() -> pd.DataFrame:
    return contract.feature_frame(contract.synthesize(N_ROWS, 2))


def test_a_sound_feed_has_no_problems(current: pd.DataFrame, reference: pd.DataFrame) -> None:
    assert feed_problems(current, reference, contract) == ()


def test_one_value_outside_the_limits_is_a_problem(current: pd.DataFrame, reference: pd.DataFrame) -> None:
    current.loc[7, "load_ratio"] = 5.5
    assert feed_problems(current, reference, contract) == ("load_ratio: 1 values outside 0 to 5",)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_an_infinity_is_outside_the_limits(value: float, current: pd.DataFrame, reference: pd.DataFrame) -> None:
    current.loc[7, "load_ratio"] = value
    assert feed_problems(current, reference, contract) == ("load_ratio: 1 values outside 0 to 5",)


def test_a_jump_of_the_missing_rate_is_a_problem(current: pd.DataFrame, reference: pd.DataFrame) -> None:
    current.loc[: N_ROWS // 2, "temperature_c"] = np.nan
    (problem,) = feed_problems(current, reference, contract)
    assert problem.startswith("temperature_c: 5")
    assert problem.endswith("% missing, 6 % in the reference")


def test_a_column_that_is_missing_altogether_is_a_problem(current: pd.DataFrame, reference: pd.DataFrame) -> None:
    current["temperature_c"] = np.nan
    assert feed_problems(current, reference, contract) == ("temperature_c: 100 % missing, 6 % in the reference",)


def test_a_small_rise_of_the_missing_rate_is_none(current: pd.DataFrame, reference: pd.DataFrame) -> None:
    current.loc[: N_ROWS // 6, "temperature_c"] = np.nan
    assert feed_problems(current, reference, contract) == ()


def test_values_that_are_no_longer_missing_are_none(current: pd.DataFrame, reference: pd.DataFrame) -> None:
    reference = reference.copy()
    reference.loc[:1_500, "temperature_c"] = np.nan
    assert feed_problems(current, reference, contract) == ()


def test_a_varying_column_that_became_constant_is_a_problem(current: pd.DataFrame, reference: pd.DataFrame) -> None:
    current["load_ratio"] = 0.7
    assert feed_problems(current, reference, contract) == ("load_ratio: always 0.7, of many values in the reference",)


def test_a_column_that_nearly_always_was_the_same_may_be_constant(
    current: pd.DataFrame, reference: pd.DataFrame
) -> None:
    reference = reference.assign(restarts=np.where(np.arange(len(reference)) < 20, 1.0, 0.0))
    assert feed_problems(current.assign(restarts=0.0), reference, contract) == ()


@pytest.mark.parametrize(("factor", "is_problem"), [(1 / 25, True), (1 / 15, False), (3.0, False), (25.0, True)])
def test_another_unit_is_a_problem_and_another_population_is_none(
    factor: float, is_problem: bool, current: pd.DataFrame, reference: pd.DataFrame
) -> None:
    scaled = reference.assign(load_ratio=reference["load_ratio"] / 8)  # keeps all of them within the limits
    now = current.assign(load_ratio=current["load_ratio"] / 8 * factor)
    problems = [problem for problem in feed_problems(now, scaled, contract) if "outside" not in problem]
    assert bool(problems) == is_problem
    if is_problem:
        assert "has the unit changed?" in problems[0]


def test_a_derived_feature_is_not_blamed(current: pd.DataFrame, reference: pd.DataFrame) -> None:
    """It follows from the inputs, which are named instead."""
    assert feed_problems(current.assign(strain=1e9), reference, contract) == ()


def test_too_few_rows_say_nothing(current: pd.DataFrame, reference: pd.DataFrame) -> None:
    broken = current.assign(load_ratio=9.0)
    assert feed_problems(broken.iloc[: MIN_ROWS - 1], reference, contract) == ()
    assert feed_problems(broken, reference.iloc[: MIN_ROWS - 1], contract) == ()
    assert feed_problems(broken.iloc[:MIN_ROWS], reference, contract) != ()


def test_every_problem_is_listed(current: pd.DataFrame, reference: pd.DataFrame) -> None:
    current["temperature_c"] = np.nan
    current["load_ratio"] = 9.0
    problems = feed_problems(current, reference, contract)
    assert [problem.partition(" ")[0] for problem in problems] == [
        "temperature_c:",
        "load_ratio:",
        "load_ratio:",
        "98",
    ]


@pytest.mark.parametrize("factor", [12.0, 1 / 12, 7.0, 10.0])
def test_a_small_unit_factor_is_believed_if_it_explains_all_of_the_difference(
    factor: float, current: pd.DataFrame, reference: pd.DataFrame
) -> None:
    base = reference.assign(load_ratio=reference["load_ratio"] / 12)
    now = current.assign(load_ratio=current["load_ratio"] / 12 * factor)
    told = [problem for problem in feed_problems(now, base, contract) if "unit" in problem]
    assert len(told) == 1
    squeezed = now.assign(load_ratio=now["load_ratio"].median() * (0.9 + now["load_ratio"].rank(pct=True) / 5))
    assert not [problem for problem in feed_problems(squeezed, base, contract) if "unit" in problem]


def test_two_columns_that_were_swapped_are_told_by_name(current: pd.DataFrame, reference: pd.DataFrame) -> None:
    swapped = current.assign(load_ratio=current["restarts"], restarts=current["load_ratio"])
    (problem,) = [problem for problem in feed_problems(swapped, reference, contract) if "swapped" in problem]
    assert problem.startswith("load_ratio and restarts: ")


def test_a_column_that_only_looks_like_another_one_now_was_not_swapped(
    current: pd.DataFrame, reference: pd.DataFrame
) -> None:
    assert feed_problems(current.assign(load_ratio=current["restarts"].clip(upper=5)), reference, contract) == ()


@pytest.mark.parametrize(
    ("n_different", "is_problem"), [(20, True), (130, True), (199, False), (250, False), (380, False)]
)
def test_rows_that_are_sent_again_and_again_are_a_problem(
    n_different: int, is_problem: bool, current: pd.DataFrame, reference: pd.DataFrame
) -> None:
    stale = current.iloc[np.arange(N_ROWS) % n_different].reset_index(drop=True)
    problems = [problem for problem in feed_problems(stale, reference, contract) if "repeat another one" in problem]
    assert bool(problems) == is_problem


@pytest.mark.parametrize("share", [0.15, 0.30])
def test_a_client_that_retries_is_no_broken_feed(share: float, current: pd.DataFrame, reference: pd.DataFrame) -> None:
    n_again = round(share * N_ROWS)
    rows = pd.concat([current.head(N_ROWS - n_again), current.head(n_again)], ignore_index=True)
    assert feed_problems(rows, reference, contract) == ()


def test_rows_that_are_often_the_same_in_a_sound_feed_may_be_so(reference: pd.DataFrame) -> None:
    few_kinds = reference.iloc[np.arange(len(reference)) % 30].reset_index(drop=True)
    now = few_kinds.sample(N_ROWS, random_state=1).reset_index(drop=True)
    assert feed_problems(now, few_kinds, contract) == ()


# What a slice of the population explains

WEEKDAYS = tuple(f"day_{day}" for day in ("mon", "tue", "wed", "thu", "fri"))


def contract_of(*inputs: Feature) -> ModelContract:
    return ModelContract("shop", "orders", Label("y", "bought"), inputs=inputs)


def flag(name: str) -> Feature:
    return Feature(name, "int", 0, 1, "", name, 0)


SHOP = contract_of(
    Feature("amount", "float", 0, 1_000, "", "Amount", 10),
    Feature("hour", "int", 0, 23, "", "Hour", 12),
    *(flag(name) for name in WEEKDAYS),
)
PEOPLE = contract_of(flag("student"), flag("retired"), Feature("age", "int", 16, 99, "", "Age", 40))


def orders(n_rows: int, seed: int, day: int | None = None, hour: int | None = None) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    days = rng.integers(0, 5, n_rows) if day is None else np.full(n_rows, day)
    hours = rng.integers(8, 20, n_rows) if hour is None else np.full(n_rows, hour)
    columns: dict[str, FloatArray] = {"amount": rng.gamma(2, 20 + 5 * days), "hour": hours.astype(np.float64)}
    return pd.DataFrame(columns | {name: (days == i).astype(np.float64) for i, name in enumerate(WEEKDAYS)})


def people(n_rows: int, seed: int, student: float = 0.05, retired: float = 0.15) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    kind = rng.choice(3, n_rows, p=[student, retired, 1 - student - retired])
    age = np.choose(kind, [rng.integers(18, 30, n_rows), rng.integers(60, 90, n_rows), rng.integers(25, 65, n_rows)])
    return pd.DataFrame({"student": kind == 0, "retired": kind == 1, "age": age}).astype(np.float64)


@pytest.mark.parametrize(("n_rows", "hour"), [(500, None), (500, 14), (50, None)])
def test_calm_rows_of_one_day_or_hour_are_no_fault(n_rows: int, hour: int | None) -> None:
    assert feed_problems(orders(n_rows, 1, day=0, hour=hour), orders(5_000, 2), SHOP) == ()


def test_a_stretch_of_the_reference_with_the_same_value_explains_a_constant() -> None:
    """The value is too rare to be a usual one, but time explains it: the reference is in chronological order."""
    reference = orders(5_000, 2)
    stuck = orders(100, 3).assign(amount=77.0)
    (problem, *_) = feed_problems(stuck, reference, SHOP)
    assert problem == "amount: always 77, of many values in the reference"
    reference.loc[1_000:1_100, "amount"] = 77.0
    assert not [problem for problem in feed_problems(stuck, reference, SHOP) if problem.startswith("amount")]


def test_a_usual_value_that_is_filled_in_for_all_customers_is_a_fault() -> None:
    everybody = people(500, 1, retired=0.5)
    (problem,) = feed_problems(everybody.assign(retired=1.0), people(5_000, 2, retired=0.5), PEOPLE)
    assert problem == "retired: always 1, in rows whose other columns are those of all values"


def test_customers_who_all_have_a_usual_value_are_no_fault() -> None:
    assert feed_problems(people(500, 1, student=0.0, retired=1.0), people(5_000, 2, retired=0.5), PEOPLE) == ()


@pytest.mark.parametrize(("student", "retired"), [(0.15, 0.05), (0.20, 0.08)])
def test_flags_whose_shares_exchange_are_no_fault(student: float, retired: float) -> None:
    now = people(500, 1, student, retired)
    assert feed_problems(now, people(5_000, 2), PEOPLE) == ()
    assert feed_problems(now.drop(columns="age"), people(5_000, 2), contract_of(flag("student"), flag("retired"))) == ()


def test_flags_that_were_swapped_are_a_fault_if_another_column_shows_it() -> None:
    now = people(500, 1)
    swapped = now.assign(student=now["retired"], retired=now["student"])
    (problem,) = feed_problems(swapped, people(5_000, 2), PEOPLE)
    assert problem.startswith("student and retired: ")


# What people have declared


def checked(now: pd.DataFrame, sound: dict[str, str]) -> FeedFindings:
    return check_feed(now, orders(5_000, 2), SHOP, sound)


def test_what_is_declared_sound_is_named_with_who_and_why() -> None:
    broken = orders(500, 1).assign(hour=-1.0, amount=lambda rows: -1.0 - rows["amount"])
    found = checked(broken, {"hour": "declared sound by ann: new shop"})
    assert {problem.partition(":")[0] for problem in found.problems} == {"amount"}
    assert found.columns == ("amount",)
    assert "hour: 500 values outside 0 to 23 (declared sound by ann: new shop)" in found.accepted


def test_two_columns_are_no_swap_only_if_both_are_declared_sound() -> None:
    swapped = orders(500, 1).rename(columns={"hour": "amount", "amount": "hour"})
    both = {"hour": "declared sound by ann: new shop", "amount": "declared sound by bob: euros"}
    (problem,) = checked(swapped, {"hour": both["hour"]}).problems[-1:]
    assert "swapped" in problem
    found = checked(swapped, both)
    assert found.problems == ()
    assert found.accepted[-1] == f"{problem} ({both['amount']}; {both['hour']})"


def test_repeated_rows_are_declared_sound_as_rows() -> None:
    stale = orders(20, 1).iloc[np.arange(500) % 20].reset_index(drop=True)
    assert len(checked(stale, {}).problems) == 1
    assert checked(stale, {ROWS: "declared sound by ann: replay"}).problems == ()


# What must not be learned from

BROKEN, SOUND = True, False
MINUTE = timedelta(minutes=1)
END = builders.window().end


def spoiled(is_broken: bool, checked: timedelta | None, before: tuple[bool, timedelta] | None) -> object:
    """The period, as minutes before the window's end; None if there is none."""
    problems = ("load_ratio: always 1",) if is_broken else ()
    report = builders.drift_report(
        feed_checked_since=None if checked is None else END - checked, feed_problems=problems
    )
    found = spoiled_period(report, None if before is None else FeedCheck(before[0], END - before[1]))
    return None if found is None else ((END - found.started_at) / MINUTE, (END - found.ended_at) / MINUTE)


@pytest.mark.parametrize(
    ("is_broken", "checked", "before", "expected"),
    [
        (BROKEN, 20 * MINUTE, None, (60, 0)),
        (BROKEN, 20 * MINUTE, (SOUND, 5 * MINUTE), (20, 0)),
        (BROKEN, 20 * MINUTE, (SOUND, 60 * MINUTE), (60, 0)),
        (SOUND, 20 * MINUTE, (BROKEN, 60 * MINUTE), (60, 20)),
        (SOUND, 20 * MINUTE, (BROKEN, 5 * MINUTE), None),
        (SOUND, 20 * MINUTE, (SOUND, 60 * MINUTE), None),
        (SOUND, 20 * MINUTE, None, None),
        (BROKEN, None, None, None),
    ],
    ids=[
        "first",
        "overlapping",
        "unlooked before",
        "repaired",
        "repaired, overlapping",
        "sound",
        "first sound",
        "too few rows",
    ],
)
def test_what_nobody_has_seen_to_be_sound_is_spoiled(
    is_broken: bool, checked: timedelta | None, before: tuple[bool, timedelta] | None, expected: object
) -> None:
    assert spoiled(is_broken, checked, before) == expected
