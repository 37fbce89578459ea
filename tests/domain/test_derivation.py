"""Rules of what a derived feature is computed from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from selfheal.domain.contract import DerivedFeature
from selfheal.domain.derivation import inputs_of_derived
from tests.toy_use_case import contract


def test_what_a_feature_is_computed_from_is_found_by_computing_it() -> None:
    assert inputs_of_derived(contract) == {"strain": {"load_ratio", "temperature_c"}}
    constant = replace(
        contract,
        derived=(DerivedFeature("zero", "float", "-", "0", "none"),),
        derive=lambda columns: {"zero": np.zeros_like(columns["restarts"])},
    )
    assert inputs_of_derived(constant) == {"zero": frozenset()}
