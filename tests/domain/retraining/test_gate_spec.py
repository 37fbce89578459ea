"""Gates are found by themselves, in their declared order, and what is wrong with one is said when it is found."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from selfheal import settings
from selfheal.cli.setting_sources import settings_sources
from selfheal.domain.records import GateStatus, Interval
from selfheal.domain.retraining import gates
from selfheal.domain.retraining.gate_spec import GateSpec, Limit, Measurement
from selfheal.domain.retraining.gates import GATES, GATES_BY_NAME, checked, find_gates
from selfheal.kit.errors import ConfigurationError

GATE = """
from selfheal.domain.retraining.gate_spec import GateSpec, Limit

SPEC = GateSpec(name={name!r}, rule=lambda case, limits: None, limits=(Limit({limit!r}),), description="", passes_if="",
                order={order})
"""

Write = Callable[..., None]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of gates that is empty yet."""
    folder = tmp_path / "own_gates"
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "own_gates"]:
        del sys.modules[name]


def write(package: Path, module: str, *, name: str | None = None, limit: str | None = None, order: int = 70) -> None:
    text = GATE.format(name=name or module, limit=limit or f"max_{module}", order=order)
    (package / f"{module}.py").write_text(text)


def found(package: Path) -> list[str]:
    return [spec.name for spec in find_gates([str(package)], "own_gates")]


def spec(name: str = "calm", **changes: object) -> GateSpec:
    values = {"rule": lambda case, limits: None, "limits": (Limit(f"max_{name}"),), "description": "", "passes_if": ""}
    return GateSpec(name, **{**values, **changes})  # type: ignore[arg-type]


def test_a_file_is_enough_to_add_a_gate_and_the_declared_order_decides_where_it_stands(package: Path) -> None:
    write(package, "b_first", order=10)
    write(package, "a_second", order=20)
    write(package, "z_third", order=20)
    assert found(package) == ["b_first", "a_second", "z_third"]


def test_a_gate_that_says_nothing_of_its_order_stands_after_the_six_and_before_what_is_reported_beside_them() -> None:
    names = [gate.name for gate in checked([*GATES, spec()])]
    assert names.index("auc_roc") < names.index("calm") < names.index("segments")


@pytest.mark.parametrize(
    ("second", "problem"),
    [
        ({"name": "first"}, "two gates are named first"),
        ({"limit": "max_first"}, "two limits are named max_first"),
        ({"limit": "seed"}, "two limits are named seed"),
        ({"limit": "random_seed"}, "two settings of limits are named random_seed"),
    ],
)
def test_what_two_gates_share_is_refused_by_name(package: Path, second: dict[str, str], problem: str) -> None:
    write(package, "first")
    write(package, "second", **second)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=problem):
        found(package)


def test_a_module_without_a_gate_is_refused_by_name(package: Path) -> None:
    (package / "helper.py").write_text("SPEC = 'none'")
    with pytest.raises(ConfigurationError, match=r"own_gates\.helper defines no SPEC"):
        found(package)


def test_a_gate_that_can_be_evaluated_again_has_a_limit_by_which_a_verdict_shows_that_it_was_a_part() -> None:
    with pytest.raises(ConfigurationError, match="the gate calm has no limit"):
        checked([spec(limits=())])
    assert checked([spec(limits=(), rests_on="live_traffic")])


def test_a_setting_that_a_gate_brings_has_a_description() -> None:
    with pytest.raises(ConfigurationError, match="max_calm of the gate calm brings a setting without a description"):
        checked([spec(limits=(Limit("max_calm", default=0.5),))])


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_what_is_no_number_is_no_measurement(number: float) -> None:
    measured = Measurement(GateStatus.PASS, 0.5, 0.4, "well", 10)
    for changes in ({"value": number}, {"threshold": number}, {"interval": Interval(0.1, number)}):
        with pytest.raises(ValueError, match="what is not known is None"):
            replace(measured, **changes)  # type: ignore[arg-type]


# Settings


@pytest.fixture
def use_gates(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[GateSpec], None]]:
    """Puts one more gate among the shipped ones, as the settings know them."""
    shipped = [gate for gate in GATES if not any(limit.brings_setting for limit in gate.limits)]

    def use(gate: GateSpec) -> None:
        monkeypatch.setattr(gates, "GATES", checked([*shipped, gate]))
        settings._settings_with_gates.cache_clear()

    yield use
    settings._settings_with_gates.cache_clear()


OWN = Limit("max_calm", default=0.5, at_least=0, at_most=1, description="how calm it may be")


def test_the_setting_that_a_gate_brings_is_read_checked_and_described_like_any_other(
    use_gates: Callable[[GateSpec], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    use_gates(spec(limits=(OWN,)))
    assert vars(settings.load_settings())["max_calm"] == 0.5
    monkeypatch.setenv("MAX_CALM", "0.25")
    loaded = settings.load_settings(min_recall=0.4)
    assert isinstance(loaded, settings.Settings)
    assert (vars(loaded)["max_calm"], loaded.min_recall) == (0.25, 0.4)
    assert settings_sources(loaded)["max_calm"] == "environment"
    assert type(loaded).model_fields["max_calm"].description == "how calm it may be"
    assert vars(settings.default_settings())["max_calm"] == 0.5
    monkeypatch.setenv("MAX_CALM", "1.5")
    with pytest.raises(ConfigurationError, match=r"wrong setting: MAX_CALM=1\.5: .*less than or equal to 1"):
        settings.load_settings()


def test_where_no_gate_brings_a_setting_the_settings_are_those_that_are_shipped(
    use_gates: Callable[[GateSpec], None],
) -> None:
    use_gates(spec(limits=(), rests_on="live_traffic"))
    assert type(settings.load_settings()) is settings.Settings


@pytest.mark.parametrize(
    ("limit", "problem"),
    [
        (Limit("max_calm"), "MAX_CALM is no setting: bring one"),
        (replace(OWN, setting="api_port"), "API_PORT is a setting already: choose another"),
    ],
)
def test_a_limit_without_a_setting_or_with_anothers_is_refused_by_name(
    use_gates: Callable[[GateSpec], None], limit: Limit, problem: str
) -> None:
    use_gates(spec(limits=(limit,)))
    with pytest.raises(ConfigurationError, match=f"the gate calm has the limit max_calm: {problem}"):
        settings.load_settings()


def test_a_gate_is_found_by_its_name() -> None:
    assert GATES_BY_NAME["recall"].limits[0].setting_name == "min_recall"
