"""What assets, checks and jobs show can be written, whatever kind of number a record has."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
from dagster._serdes import deserialize_value, serialize_value
from hypothesis import given, settings
from hypothesis import strategies as st

from selfheal.services import tick
from selfheal_assets import metadata
from selfheal_assets.metadata import document, plain, table
from tests.processes import REPOSITORY
from tests.selfheal_assets.conftest import Dagster, metadata_of
from tests.traffic import serve, toy_rows

PLAIN = {bool, int, float, str, type(None)}
floats = st.floats() | st.floats().map(np.float64) | st.floats(width=32).map(np.float32)
integers = st.integers(-(2**62), 2**62)
values = (
    floats | integers | integers.map(np.int64) | st.booleans() | st.booleans().map(np.bool_) | st.text() | st.none()
)
documents = st.recursive(values, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


@settings(max_examples=40)
@given(st.dictionaries(st.text(min_size=1), values))
def test_what_is_made_plain_is_written_and_read_as_it_was(given_values: dict[str, Any]) -> None:
    made = plain(given_values)
    assert {type(value) for value in made.values()} <= PLAIN - {type(None)}
    event = dg.AssetMaterialization("any", metadata=made)
    assert deserialize_value(serialize_value(event), dg.AssetMaterialization) == event
    assert "NaN" not in serialize_value(dg.AssetMaterialization("any", metadata=plain({"x": np.float64("nan")})))


@settings(max_examples=40)
@given(st.lists(st.fixed_dictionaries({"a": values, "b": values}), min_size=1), documents)
def test_tables_and_documents_are_plain_to_the_last_cell(rows: list[dict[str, Any]], content: Any) -> None:
    assert {type(cell) for record in table(rows).records for cell in record.data.values()} <= PLAIN
    whole = {"content": document({"of": content})}
    assert {type(leaf) for leaf in _leaves(whole["content"].value)} <= PLAIN
    event = dg.AssetMaterialization("any", metadata=whole)
    assert deserialize_value(serialize_value(event), dg.AssetMaterialization) == event


def _leaves(value: Any) -> Iterator[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    if inner is None:
        yield value
        return
    for one in inner:
        yield from _leaves(one)


def test_what_is_no_single_value_is_refused_by_its_name() -> None:
    with pytest.raises(TypeError, match="of type object is no single value"):
        plain({"x": object()})


SHOWING = {"Output", "MaterializeResult", "AssetCheckResult", "AssetMaterialization", "AssetObservation"}
MADE_THERE = {"float", "int", "json", "table", "TableRecord", "FloatMetadataValue", "JsonMetadataValue"}


@pytest.mark.parametrize("path", sorted((REPOSITORY / "selfheal_assets").rglob("*.py")), ids=lambda path: path.name)
def test_all_metadata_are_made_plain_at_the_one_place(path: Path) -> None:
    if path.name == Path(metadata.__file__).name:
        return
    for call in [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]:
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        owner = getattr(getattr(call.func, "value", None), "attr", "")
        assert not (name in MADE_THERE and (owner == "MetadataValue" or name[0].isupper())), ast.unparse(call)
        shown = [keyword.value for keyword in call.keywords if keyword.arg == "metadata" and name in SHOWING]
        shown += call.args if name == "add_output_metadata" else []
        for value in shown:
            source = ast.unparse(value)
            assert source.startswith(("plain(", "_ingested(")) or source == "seen", (
                f"{path.name}: {source} is not plain"
            )


def as_numpy(value: Any) -> Any:
    """The record with numpy's numbers in place of Python's, as a computation leaves them."""
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: as_numpy(getattr(value, field.name)) for field in fields(value)})
    if isinstance(value, tuple):
        return tuple(as_numpy(one) for one in value)
    if isinstance(value, dict):
        return {name: as_numpy(one) for name, one in value.items()}
    return np.float64(value) if type(value) is float else value


@pytest.mark.integration
def test_a_tick_whose_figures_are_numpys_is_written_down(dagster: Dagster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dagster refuses them when they are written: after all the work, and again at every tick."""
    serve(dagster.platform, toy_rows(600), labelled_share=0.5)
    collect, compare, measure = tick.collect, tick.compare, tick.measure

    monkeypatch.setattr(tick, "collect", lambda *arguments: as_numpy(collect(*arguments)))
    monkeypatch.setattr(tick, "compare", lambda *arguments: as_numpy(compare(*arguments)))
    monkeypatch.setattr(tick, "measure", lambda *arguments: as_numpy(measure(*arguments)))
    done = dagster.run("monitoring_job")
    assert done.success
    assert type(metadata_of(done, "proxy_metrics")["probability_mean"]) is float
