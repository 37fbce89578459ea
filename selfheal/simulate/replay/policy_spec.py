"""A policy with settings of its own, as text: `ours PROMOTION_COOLDOWN_DAYS=30`; and a sweep, the grid of such policies.

Belongs here: how a policy is named in commands, result files and tables, and which settings it may have. Does not belong here: what the
policies are (`policies`).
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfheal.kit.errors import ConfigurationError
from selfheal.settings import Settings, default_settings, load_settings

MAX_COMBINATIONS = 64
"""Most policies of one sweep; each is a replay of its own, and a table of more is read by nobody."""


DECIDING = (
    *("monitoring_lookback", "monitoring_max_lookback", "monitoring_max_rows", "min_drift_rows"),
    *("false_alarm_budget_days", "min_drift_effect", "harm_min_auc", "harm_min_brier_excess"),
    *("primary_metric", "max_f1_degradation_pct", "cost_of_false_alarm", "cost_of_miss", "max_skill_loss_pct"),
    "harm_min_loss_pct",
    *("min_f1_improvement_pct", "max_brier_degradation", "min_samples_for_decision", "min_coverage_pct", "min_recall"),
    *("min_auc", "gate_level", "gate_segments", "training_max_rows", "promotion_cooldown_days"),
    *("max_attempts_per_episode", "probation_hours", "min_probation_labels", "probation_max_hours"),
)
"""Settings on which a decision depends, those that gates bring apart; a replay prescribes MONITORING_INTERVAL."""


@dataclass(frozen=True, order=True)
class PolicySpec:
    """A policy by name, with the settings that differ from those in force, as (name in upper case, value as text)."""

    name: str
    settings: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{name}={value}" for name, value in self.settings)])

    @property
    def overrides(self) -> dict[str, str]:
        """Return the settings as keyword arguments of `load_settings`."""
        return {name.lower(): value for name, value in self.settings}


def parse_policy(text: str) -> PolicySpec:
    """Read a policy as `PolicySpec` writes it.

    Raises:
        ConfigurationError: if it is blank or a setting has no value.

    >>> parse_policy("ours GATE_LEVEL=0.1").overrides
    {'gate_level': '0.1'}
    """
    name, *settings = text.split() or [""]
    if not name:
        raise ConfigurationError("a policy without a name; name one with --policy (`selfheal replay --list`)")
    return PolicySpec(name, tuple(_pair(setting) for setting in settings))


def sweep(policy: PolicySpec, options: Sequence[str]) -> tuple[PolicySpec, ...]:
    """Return the policy with every combination of the values, in their order.

    Args:
        policy: with the settings that all combinations share.
        options: one text per setting, such as `PROMOTION_COOLDOWN_DAYS=1,7,30`.

    Raises:
        ConfigurationError: if a setting is unknown or given twice, a value is not allowed, or there are too many combinations.
    """
    axes: dict[str, list[str]] = {}
    for option in options:
        setting, values = _pair(option)
        if setting in axes:
            raise ConfigurationError(
                f"--sweep {setting} is given twice; give all its values in one, separated by commas"
            )
        axes[setting] = list(dict.fromkeys(value.strip() for value in values.split(",") if value.strip()))
        if not axes[setting]:
            raise ConfigurationError(f"--sweep {option}: no value; write for example PROMOTION_COOLDOWN_DAYS=1,7,30")
    combinations = list(itertools.islice(itertools.product(*axes.values()), MAX_COMBINATIONS + 1))
    if len(combinations) > MAX_COMBINATIONS:
        raise ConfigurationError(f"--sweep makes more than {MAX_COMBINATIONS} combinations; give fewer values")
    shared = tuple(pair for pair in policy.settings if pair[0] not in axes)
    found = tuple(PolicySpec(policy.name, (*shared, *zip(axes, values, strict=True))) for values in combinations)
    for spec in found:
        check_settings(spec)
    return found


def with_settings_of(name: str, settings: Settings) -> PolicySpec:
    """Return the policy with those settings in force that decide something and are not the defaults."""
    defaults = default_settings()
    of_gates = sorted(set(type(settings).model_fields) - set(Settings.model_fields))
    differing = (one for one in (*DECIDING, *of_gates) if getattr(settings, one) != getattr(defaults, one))
    return PolicySpec(name, tuple((one.upper(), str(getattr(settings, one))) for one in differing))


def check_settings(spec: PolicySpec) -> None:
    """Check that the settings of a policy exist and have allowed values.

    Raises:
        ConfigurationError: naming the setting, its value and what is allowed.
    """
    if not spec.settings:
        return
    known = type(load_settings()).model_fields
    for name, _ in spec.settings:
        if name.lower() not in known:
            close = difflib.get_close_matches(name.lower(), known, n=3)
            hint = (
                f"did you mean {', '.join(one.upper() for one in close)}?" if close else "`selfheal config` lists them"
            )
            raise ConfigurationError(f"there is no setting {name}; {hint}")
    values: Mapping[str, Any] = spec.overrides
    load_settings(**values)


def short_names(policies: Sequence[str]) -> dict[str, str]:
    """Return a name per policy that fits a chart: settings that all variants share are left out, others lose their names.

    >>> list(short_names(["never", "ours A=1 B=2", "ours A=3 B=2"]).values())
    ['never', 'ours 1', 'ours 3']
    """
    specs = {text: parse_policy(text) for text in policies}
    varied = [spec.settings for spec in specs.values() if spec.settings]
    shared = set.intersection(*map(set, varied)) if len(varied) > 1 else set()
    return {
        text: " ".join([spec.name, "/".join(pair[1] for pair in spec.settings if pair not in shared)]).strip()
        for text, spec in specs.items()
    }


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name.strip() or not value.strip():
        raise ConfigurationError(f"{text!r} is no setting with a value; write for example PROMOTION_COOLDOWN_DAYS=7")
    return name.strip().upper(), value.strip()
