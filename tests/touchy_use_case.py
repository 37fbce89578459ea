"""The toy use case, whose derivation makes something unusable of certain rows. Its models are those of the toy use case."""

from __future__ import annotations

import dataclasses
import math

from selfheal.domain.contract import Columns, DerivedFeature, FloatArray
from tests import toy_use_case

INFINITE, MISSING, FAILS = 4.75, 4.5, 4.25
"""Values of `load_ratio`, within its limits, that the derivation cannot do anything with."""


def derive(columns: Columns) -> dict[str, FloatArray]:
    load, strain = columns["load_ratio"], toy_use_case.derive(columns)["strain"]
    if (load == FAILS).any():
        raise ZeroDivisionError("secret of the contract")
    strain[load == INFINITE] = math.inf
    strain[load == MISSING] = math.nan
    return {"strain": strain}


contract = dataclasses.replace(toy_use_case.contract, derive=derive)


def derive_whole(columns: Columns) -> dict[str, FloatArray]:
    return derive(columns) | {"wear": columns["restarts"] * 9_000_000.0}


whole = dataclasses.replace(
    contract,
    derived=(*contract.derived, DerivedFeature("wear", "int", "", "restarts x 9,000,000", "it adds up")),
    derive=derive_whole,
)
"""Another contract, with a whole number that grows beyond 32 bits from 239 restarts on."""
