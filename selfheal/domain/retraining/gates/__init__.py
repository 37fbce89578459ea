"""The gates between a shadow model and production: one module per gate, discovered automatically.

A module here defines one `SPEC: GateSpec`. Settings, asset checks, the API's presentation and the verification of past verdicts
follow from it. `CONTRIBUTING.md` describes how to add one, `docs/evaluation_gates.md` how reliable the gates are.
"""

from __future__ import annotations

import pkgutil
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib import import_module
from types import MappingProxyType

from selfheal.domain.retraining.gate_spec import COMMON_LIMITS, GateSpec, Limit
from selfheal.kit.errors import ConfigurationError


def find_gates(path: Iterable[str], package: str) -> tuple[GateSpec, ...]:
    """Return the gate of each module in a package's folders, in declared order (`checked`).

    Raises:
        ConfigurationError: if a module defines no gate, or as `checked`.
    """
    specs = []
    for module in pkgutil.iter_modules(path, f"{package}."):
        spec = getattr(import_module(module.name), "SPEC", None)
        if not isinstance(spec, GateSpec):
            raise ConfigurationError(
                f"{module.name} defines no SPEC: a module of {package} is a gate, SPEC = GateSpec(...)"
            )
        specs.append(spec)
    return checked(specs)


def checked(specs: Iterable[GateSpec]) -> tuple[GateSpec, ...]:
    """Return the gates in their declared order.

    Raises:
        ConfigurationError: if two gates share a name, a limit or a setting, or if a gate is incomplete.
    """
    found = sorted(specs, key=lambda spec: (spec.order, spec.name))
    limits = [*COMMON_LIMITS, *limits_of(found)]
    _refuse_duplicates("gates", [spec.name for spec in found])
    _refuse_duplicates("limits", [limit.name for limit in limits])
    _refuse_duplicates("settings of limits", [limit.setting_name for limit in limits])
    for spec in found:
        if spec.rests_on == "evaluation" and not spec.limits:
            raise ConfigurationError(
                f"the gate {spec.name} has no limit: the limits that a verdict stores say which gates it was reached by; "
                "give it one"
            )
        for limit in spec.limits:
            if limit.brings_setting and not limit.description:
                raise ConfigurationError(
                    f"the limit {limit.name} of the gate {spec.name} brings a setting without a description: say what it is"
                )
    return tuple(found)


def limits_of(specs: Iterable[GateSpec]) -> list[Limit]:
    """Return the gates' own limits, without the common ones."""
    return [limit for spec in specs for limit in spec.limits]


def _refuse_duplicates(what: str, names: Iterable[str]) -> None:
    doubled = sorted(name for name, count in Counter(names).items() if count > 1)
    if doubled:
        raise ConfigurationError(f"two {what} are named {', '.join(doubled)}: each name belongs to one gate")


GATES = find_gates(__path__, __name__)
"""All gates, in the order in which they are evaluated and shown."""

GATES_BY_NAME: Mapping[str, GateSpec] = MappingProxyType({spec.name: spec for spec in GATES})
