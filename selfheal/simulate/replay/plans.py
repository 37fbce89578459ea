"""What a command replays: which deployments under which policies, and in words what they are.

Belongs here: from a user's choices to cells, checked before anything runs. Does not belong here: running them (`runs`), showing what
came of it (`tables`, `report_page`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from selfheal.kit.errors import ConfigurationError
from selfheal.settings import Settings, default_settings
from selfheal.simulate.replay.builders import Rebuilder, StreamFile, named_streams
from selfheal.simulate.replay.catalogue import WORLDS, core_worlds, world_named
from selfheal.simulate.replay.engine import INTERVAL
from selfheal.simulate.replay.logs import LOGS, LoggedDeployment
from selfheal.simulate.replay.natural import SHIPPED
from selfheal.simulate.replay.policies import NEVER, ORACLE, OURS, POLICIES, policy_named
from selfheal.simulate.replay.policy_spec import PolicySpec, parse_policy, sweep, with_settings_of
from selfheal.simulate.replay.replay_settings import settings_of_replay
from selfheal.simulate.replay.runs import Builder, Cell, Run

FIRST_SEED = 1
STREAM_SEED = 1
"""A natural stream is one deployment; a seed would only change how the folds of a training are cut."""

POLICIES_FOR_LOGS = (NEVER, "weekly", OURS)
"""Policies of a replay of logs, unless others are named: those that a report can wait for."""


@dataclass(frozen=True)
class Plan:
    """Deployments and policies to replay.

    Args:
        descriptions: what happens in each world or stream, by name, in the order of the tables.
        natural: the names that are natural streams.
        rows_of: where the rows come from, for people.
    """

    builder: Builder
    cells: tuple[Cell, ...]
    descriptions: Mapping[str, str]
    natural: tuple[str, ...]
    rows_of: str

    def run(self, results: Path, interval: timedelta) -> Run:
        """Return the run of this plan."""
        return Run(self.builder, results, interval)


def chosen_policies(
    named: Sequence[str],
    swept: Sequence[str],
    default: Sequence[str],
    *,
    interval: timedelta = INTERVAL,
    settings: Settings | None = None,
) -> tuple[str, ...]:
    """Return the policies to replay: those named, else the default; with a sweep, each variant of ours besides.

    Args:
        settings: in force, by which ours decides; None: the default ones.

    Raises:
        ConfigurationError: if a policy, a setting or a value does not exist, or the interval is too long for ours; before
            anything runs.
    """
    ours = PolicySpec(OURS) if settings is None else with_settings_of(OURS, settings)
    variants = [str(spec) for spec in sweep(ours, swept)] if swept else []
    chosen = named or [name for name in default if not swept or name in {NEVER, ORACLE}]
    found = tuple(dict.fromkeys([*(str(ours) if name == OURS else name for name in chosen), *variants]))
    for text in found:
        policy_named(text)
        spec = parse_policy(text)
        if spec.name == OURS:
            settings_of_replay(default_settings(), interval, FIRST_SEED, spec.overrides)
    return found


def plan_of_worlds(
    worlds: Sequence[str],
    streams: Sequence[StreamFile],
    policies: Sequence[str],
    *,
    use_case: str,
    data: Path | None,
    n_seeds: int,
    days: float | None,
) -> Plan:
    """Return the plan for named worlds, shipped streams and streams from files.

    Args:
        worlds: names of worlds or of streams that a package ships; `core`: all core worlds.
        n_seeds: deployments of each world; a stream is one.

    Raises:
        ConfigurationError: if there is no such world.
        InvalidDataError: if a file is wrong.
    """
    names = _with_groups(worlds)
    if data is not None and not data.is_file():
        raise ConfigurationError(f"--data {data}: no such file; name a labelled CSV")
    files = named_streams(tuple(streams))
    shipped = [name for name in names if name in SHIPPED]
    of_catalogue = [world_named(name) for name in names if name not in SHIPPED]
    natural = (*shipped, *(name for name, _ in files))
    seeds = range(FIRST_SEED, FIRST_SEED + n_seeds)
    cells = [Cell(world.name, seed, policy) for world in of_catalogue for seed in seeds for policy in policies]
    cells += [Cell(name, STREAM_SEED, policy) for name in natural for policy in policies]
    descriptions = {world.name: world.description for world in of_catalogue}
    descriptions |= dict.fromkeys(natural, "a natural stream: real rows in their order, with real labels")
    return Plan(
        Rebuilder(use_case, None if data is None else data.resolve(), files, days),
        tuple(cells),
        descriptions,
        natural,
        _rows_of(data, [path.path.name for _, path in files], has_worlds=bool(of_catalogue)),
    )


def plan_of_logs(logged: LoggedDeployment, policies: Sequence[str]) -> Plan:
    """Return the plan for the platform's own logs."""
    cells = tuple(Cell(LOGS, STREAM_SEED, policy) for policy in policies)
    return Plan(logged, cells, {LOGS: logged.description}, (LOGS,), f"the platform's own logs, from {logged.rows_from}")


def listing() -> dict[str, list[dict[str, Any]]]:
    """Return the worlds, the shipped streams and the policies, with a line on each."""
    worlds = [{"world": w.name, "kind": w.kind.value, "what_happens": w.description} for w in WORLDS.values()]
    streams = [{"world": name, "kind": "natural", "what_happens": "a natural stream"} for name in SHIPPED]
    policies = [{"policy": entry.name, "what_it_does": entry.description} for entry in POLICIES.values()]
    return {"worlds": worlds + streams, "policies": policies}


def _with_groups(names: Sequence[str]) -> list[str]:
    groups = {"core": [world.name for world in core_worlds()], "all": list(WORLDS)}
    return list(dict.fromkeys(one for name in names for one in groups.get(name, [name])))


def _rows_of(data: Path | None, streams: Sequence[str], *, has_worlds: bool) -> str:
    of_worlds = "the contract's synthetic stand-in" if data is None else data.name
    return ", ".join([*([of_worlds] if has_worlds else []), *streams]) or "a shipped stream"
