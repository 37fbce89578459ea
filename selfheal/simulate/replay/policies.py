"""All policies by name: how each is run on a deployment. A policy is one entry to add."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from selfheal.kit.errors import ConfigurationError
from selfheal.simulate.replay.deployment import Deployment, Kind
from selfheal.simulate.replay.engine import Replay, replay
from selfheal.simulate.replay.peers.adwin import AdwinRetrain
from selfheal.simulate.replay.peers.calendar import FixedInterval, Never
from selfheal.simulate.replay.peers.evidently_drift import EvidentlyAlarm
from selfheal.simulate.replay.peers.nannyml_estimate import NannyEstimate
from selfheal.simulate.replay.peers.oracle import Oracle, best_fixed_interval
from selfheal.simulate.replay.policy import Policy
from selfheal.simulate.replay.policy_spec import check_settings, parse_policy

PolicyFactory = Callable[[Deployment, int, timedelta], Policy]
"""Makes a policy for one replay, from the deployment, the seed and the interval. Only an oracle looks into the deployment."""

NEVER, ORACLE, OURS = "never", "oracle", "ours"


@dataclass(frozen=True)
class PolicyEntry:
    """One policy: its name, what it does in a sentence, and how one is made.

    `make_with` makes it with other settings than those in force, by their names in lower case; None: it has no settings.
    """

    name: str
    description: str
    make: PolicyFactory
    make_with: Callable[[Mapping[str, str]], PolicyFactory] | None = None

    def run(self, deployment: Deployment, interval: timedelta, seed: int) -> Replay:
        """Replay the deployment under this policy."""
        if self.name == ORACLE and deployment.kind is Kind.NATURAL:
            return best_fixed_interval(deployment, interval, seed)
        return replay(deployment, self.make(deployment, seed, interval), interval=interval, seed=seed)


_ENTRIES = (
    PolicyEntry(NEVER, "keep the first champion for ever", lambda *_: Never()),
    PolicyEntry("weekly", "retrain weekly on a rolling window, always promote", lambda *_: FixedInterval()),
    PolicyEntry("evidently", "Evidently's default alarm, F1 +2 %, seven days of cooldown", lambda *_: EvidentlyAlarm()),
    PolicyEntry("adwin", "ADWIN on the error, refit on its window", lambda *_: AdwinRetrain()),
    PolicyEntry("nannyml", "NannyML's estimate of F1 and AUC, retrain on a rolling window", lambda *_: NannyEstimate()),
    PolicyEntry(ORACLE, "knows the change and the outcomes; the yardstick", lambda d, s, _: Oracle(d, s)),
    PolicyEntry(
        OURS,
        "the platform's own: triage, six gates, probation, default settings",
        lambda _, s, i: _ours(i, s),
        make_with=lambda settings: lambda _, s, i: _ours(i, s, settings),
    ),
)
POLICIES: dict[str, PolicyEntry] = {entry.name: entry for entry in _ENTRIES}

ALL_POLICIES = tuple(POLICIES)
"""The policies of the benchmark, in the order of its tables."""


def policy_named(text: str) -> PolicyEntry:
    """Return the policy of this name, with settings if the text has some (`policy_spec`).

    Raises:
        ConfigurationError: if there is none, or it has no such settings; the message lists the known ones.
    """
    spec = parse_policy(text)
    if spec.name not in POLICIES:
        raise ConfigurationError(f"there is no policy {spec.name!r}; choose among {', '.join(POLICIES)}")
    entry = POLICIES[spec.name]
    if not spec.settings:
        return entry
    if entry.make_with is None:
        raise ConfigurationError(
            f"the policy {spec.name!r} has no settings, such as {spec.settings[0][0]}; only {OURS!r} has"
        )
    check_settings(spec)
    return replace(entry, name=str(spec), make=entry.make_with(spec.overrides))


def description_of(text: str) -> str:
    """Return what a policy does in a sentence, with its settings."""
    spec = parse_policy(text)
    settings = ", ".join(f"{name}={value}" for name, value in spec.settings)
    what = POLICIES[spec.name].description
    return f"{what}, but for {settings}" if settings else what


def policy_rank(text: str) -> int:
    """Return the place of a policy in the order of the tables; variants of one policy share it."""
    return ALL_POLICIES.index(parse_policy(text).name)


def _ours(interval: timedelta, seed: int, settings: Mapping[str, str] | None = None) -> Policy:
    from selfheal.settings import default_settings
    from selfheal.simulate.replay.ours import Ours  # which imports what production does
    from selfheal.simulate.replay.replay_settings import settings_of_replay

    return Ours(settings_of_replay(default_settings(), interval, seed, settings))
