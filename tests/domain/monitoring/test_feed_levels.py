"""A sender that names levels otherwise is found; a population that has other levels is not called a fault."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from selfheal.domain.contract import Feature, Label, ModelContract
from selfheal.domain.monitoring.feed import feed_problems

LEVELS = {"Fiber optic": 0.44, "DSL": 0.34, "No service": 0.22}
SHOPS = {f"shop {number:03}": 1 / 300 for number in range(300)}
N_THEN, N_NOW = 3_000, 500


def use_case(levels: tuple[str, ...] = ()) -> ModelContract:
    service = Feature("service", "category", description="", example="DSL", is_nullable=True, levels=levels)
    amount = Feature("amount", "float", 0, 1e6, "euro", "", 1.0)
    return ModelContract("shops", "", Label("y", "event"), (service, amount))


def rows(shares: dict[str, float], n_rows: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    drawn = rng.choice(np.array(list(shares), dtype=object), n_rows, p=list(shares.values()))
    return pd.DataFrame({"service": drawn, "amount": rng.lognormal(4, 1, n_rows)})


def problems(
    change: Callable[[pd.Series], pd.Series], shares: dict[str, float] | None = None, levels: tuple[str, ...] = ()
) -> tuple[str, ...]:
    shares = shares or LEVELS
    current = rows(shares, N_NOW, 1)
    changed = current.assign(service=change(current["service"]).astype(object))
    return feed_problems(changed, rows(shares, N_THEN, 2), use_case(levels))


def renamed(old: str, new: str) -> Callable[[pd.Series], pd.Series]:
    return lambda column: column.replace({old: new})


@pytest.mark.parametrize("shares", [LEVELS, SHOPS], ids=["three levels", "300 levels"])
def test_levels_as_they_were_are_no_fault(shares: dict[str, float]) -> None:
    assert problems(lambda column: column, shares) == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(lambda column: column.str.upper(), "spelled otherwise .* in 6. % .*'Fiber optic' is now 'FIBER OPTIC'", id="upper case"),
        pytest.param(lambda column: column.str.replace(" ", "_"), "spelled otherwise .*'No service' is now 'No_service'", id="separators"),
        pytest.param(lambda column: column + " ", "spelled otherwise .* in 100 %", id="a blank at the end"),
        pytest.param(lambda column: column.str[:5], "spelled otherwise .*'Fiber optic' is now 'Fiber'", id="cut off"),
        pytest.param(renamed("DSL", "dsl"), r"'DSL' is now 'dsl'", id="one level"),
        pytest.param(renamed("DSL", "copper"), r"'DSL' \(3. %\) is gone and 'copper' \(3\d %\) is new; has the sender renamed", id="renamed"),
        pytest.param(lambda column: column.map({name: str(i) for i, name in enumerate(LEVELS)}), r"100 % of the rows have levels that the reference does not have \('0', '1', '2'\); have its codes changed", id="codes"),
    ],
)  # fmt: skip
def test_levels_under_another_name_are_a_fault_of_the_sender(
    change: Callable[[pd.Series], pd.Series], said: str
) -> None:
    (found,) = problems(change)
    assert found.startswith("service: ")
    assert pd.Series([found]).str.contains(said, regex=True).all(), found


def test_the_codes_of_many_levels_are_a_fault_too() -> None:
    (found,) = problems(lambda column: column.str.replace("shop ", "S-"), SHOPS)
    assert "% of the rows" in found


def test_levels_of_a_growing_population_are_no_fault() -> None:
    def growing(column: pd.Series) -> pd.Series:
        taken = np.random.default_rng(3).random(len(column)) < 0.2
        return column.where(~taken, "5G")

    assert problems(growing) == (), "a fifth of the customers has taken a new product"
    assert problems(lambda column: column.where(column != "DSL", "Fiber optic")) == (), "one product is gone"
    assert problems(lambda column: column + np.where(np.arange(len(column)) < 3, "!", "")) == (), (
        "three rows of one client"
    )


def test_keys_that_are_new_in_every_row_are_as_they_were() -> None:
    current, reference = (
        pd.DataFrame({"service": [f"{seed}-{i}" for i in range(n)], "amount": np.arange(1.0, n + 1)})
        for n, seed in ((N_NOW, "a"), (N_THEN, "b"))
    )
    assert not [one for one in feed_problems(current, reference, use_case()) if one.startswith("service")]


def test_a_level_that_the_contract_declares_is_not_new() -> None:
    to_cable = renamed("DSL", "Cable")
    assert problems(to_cable) != ()
    assert problems(to_cable, levels=("Cable",)) == ()


def test_a_level_that_is_always_the_same_is_named() -> None:
    found = problems(lambda column: column.where(column.isna(), "unknown"))
    assert "service: always 'unknown', of many values in the reference" in found


def test_missing_levels_are_a_fault_as_missing_numbers_are() -> None:
    (found,) = problems(lambda column: column.where(np.arange(len(column)) % 2 == 0, None))
    assert found == "service: 50 % missing, 0 % in the reference"
