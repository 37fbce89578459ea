"""The page of the gates says what the gates are: a row for each, with its settings and their defaults."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from selfheal.domain.retraining.gate_spec import GateSpec
from selfheal.domain.retraining.gates import GATES
from selfheal.settings import Settings, default_settings
from tests.docs.pages import table

PAGE = "docs/evaluation_gates.md"


def shown(name: str) -> str:
    """A setting with its default; of a choice, with what else may be chosen."""
    settings: Settings = default_settings()
    value: Any = getattr(settings, name)
    choices = get_args(type(settings).model_fields[name].annotation)
    if isinstance(value, str):
        others = "".join(f"; or `{choice}`" for choice in choices if choice != value)
        return f"`{name.upper()}` (`{value}`{others})"
    return f"`{name.upper()}` ({value:,g})"


def row(gate: GateSpec) -> list[str]:
    names = [*(limit.setting_name for limit in gate.limits), *gate.other_settings]
    return [f"`{gate.name}`", gate.passes_if, ", ".join(shown(name) for name in names)]


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.name)
def test_the_table_has_the_row_of_each_gate(gate: GateSpec) -> None:
    assert row(gate) in table(PAGE, "gate"), f"{PAGE} lacks the row\n| {' | '.join(row(gate))} |"


def test_the_table_has_the_gates_in_their_order_and_no_other() -> None:
    assert [cells[0] for cells in table(PAGE, "gate")] == [f"`{gate.name}`" for gate in GATES]
