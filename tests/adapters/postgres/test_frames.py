"""The columns of a prediction as frames have them: with the entity where the contract declares a key, as text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from selfheal.adapters.postgres.frames import columns_of, entity_column, entity_dtype
from selfheal.domain.clusters import ENTITY
from tests.toy_use_case import contract, keyed


class StoreOf:
    """A store as far as these functions ask it: its contract."""

    def __init__(self, use_case: Any) -> None:
        self.contract = use_case


@pytest.mark.parametrize(
    ("use_case", "column", "is_selected"),
    [(contract, None, False), (keyed, ENTITY, True), (replace(contract, entity="restarts"), "restarts", False)],
)
def test_the_entity_is_a_column_of_its_own_only_where_the_key_is_no_input(
    use_case: Any, column: str | None, is_selected: bool
) -> None:
    store: Any = StoreOf(use_case)
    assert entity_column(store) == column
    assert (ENTITY in columns_of(store)) is is_selected
    assert bool(entity_dtype(store)) is is_selected
    assert columns_of(store, "p.").startswith('p."temperature_c"')
