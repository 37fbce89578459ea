"""All policies by name: how each is run on a deployment. A policy is one entry to add.

`ours`, the platform's own deciding code, is entered here once its services run on a store that a replay can provide; until then asking
for it is an error, never a stand-in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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

PolicyFactory = Callable[[Deployment, int], Policy]
"""Makes a policy for one replay, from the deployment and the seed. Only an oracle looks into the deployment."""

NEVER, ORACLE, OURS = "never", "oracle", "ours"


@dataclass(frozen=True)
class PolicyEntry:
    """One policy: its name, what it does in a sentence, and how one is made."""

    name: str
    description: str
    make: PolicyFactory

    def run(self, deployment: Deployment, interval: timedelta, seed: int) -> Replay:
        """Replay the deployment under this policy."""
        if self.name == ORACLE and deployment.kind is Kind.NATURAL:
            return best_fixed_interval(deployment, interval, seed)
        return replay(deployment, self.make(deployment, seed), interval=interval, seed=seed)


_ENTRIES = (
    PolicyEntry(NEVER, "keep the first champion for ever", lambda _d, _s: Never()),
    PolicyEntry("weekly", "retrain weekly on a rolling window, always promote", lambda _d, _s: FixedInterval()),
    PolicyEntry(
        "evidently", "Evidently's default alarm, F1 +2 %, seven days of cooldown", lambda _d, _s: EvidentlyAlarm()
    ),
    PolicyEntry("adwin", "ADWIN on the error, refit on its window", lambda _d, _s: AdwinRetrain()),
    PolicyEntry(
        "nannyml", "NannyML's estimate of F1 and AUC, retrain on a rolling window", lambda _d, _s: NannyEstimate()
    ),
    PolicyEntry(ORACLE, "knows the change and the outcomes; the yardstick", Oracle),
)
POLICIES: dict[str, PolicyEntry] = {entry.name: entry for entry in _ENTRIES}

ALL_POLICIES = (*POLICIES, OURS)
"""The policies of the benchmark, in the order of its tables."""


def policy_named(name: str) -> PolicyEntry:
    """Return the policy of this name.

    Raises:
        ConfigurationError: if there is none; the message lists the known ones.
    """
    if name in POLICIES:
        return POLICIES[name]
    if name == OURS:
        raise ConfigurationError(
            "the policy 'ours' cannot be replayed yet: its services need a store in memory; leave it out of --policy"
        )
    raise ConfigurationError(f"there is no policy {name!r}; choose among {', '.join(POLICIES)}")
