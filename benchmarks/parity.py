"""Parity: one deployment through Dagster on Postgres and MLflow, and through a replay in memory. The same decisions?

Belongs here: living through a deployment with the real sensors, jobs, journal and databases at simulated times, and comparing.
Does not belong here: the replay (`selfheal.simulate.replay.ours`).

At each look the rows since the look before are scored by the version in production, written to the journal with their times
and copied to Postgres, and so are the labels that have arrived. Then the sensors are evaluated in the order of a look, and what
they request is run. The clock is set in the modules that ask for the time.

Ids and digests that depend on the id of an MLflow run, or on the bytes of a model file, are left out of the comparison, and so is
how long a model took to score. A training set's digest is compared: it covers the scores of every logged row, to the last bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any
from unittest.mock import patch

import dagster as dg
import numpy as np

from selfheal.adapters.journal import LABEL_JOURNAL, Journal, column_values, format_time, prediction_journal
from selfheal.adapters.postgres import decisions as decision_queries
from selfheal.adapters.postgres.ingest import ingest
from selfheal.adapters.postgres.ticks import recent_ticks
from selfheal.domain.contract import load_contract
from selfheal.domain.records import Decision
from selfheal.kit.serialization import to_dict
from selfheal.services.platform import Platform
from selfheal.services.scoring import scoring_of
from selfheal.settings import default_settings
from selfheal.simulate.replay.deployment import Deployment, Selection
from selfheal.simulate.replay.engine import moments_of, replay
from selfheal.simulate.replay.memory.traffic import LABEL_SOURCE, as_datetime, prediction_id_of
from selfheal.simulate.replay.ours import Ours, install, is_weekly_due
from selfheal.simulate.replay.replay_settings import prescribed, settings_of_replay
from selfheal_assets.assets.retraining import RequestTrigger, RetrainingRequest
from selfheal_assets.definitions import build_definitions
from selfheal_assets.job_names import MONITORING_JOB, PROBATION_JOB, RETRAINING_JOB
from selfheal_assets.resources.platform import PlatformResource, close_all
from selfheal_assets.resources.versions import MODEL_VERSIONS

CLOCKED = (
    "selfheal_assets.assets.monitoring",
    "selfheal_assets.assets.retraining",
    "selfheal_assets.assets.promotion",
    "selfheal_assets.sensors.monitoring",
    "selfheal_assets.sensors.retraining",
    "selfheal_assets.sensors.probation",
)
"""Modules that ask for the time."""

MAX_JOURNAL_BYTES = 64_000_000
LEFT_OUT = ("decision_id", "mlflow_run_id", "model_sha256", "cross_fitted_sha256")
LATENCY_GATE = "shadow_scoring"
"""Its sentence says how long the models took."""


@dataclass
class Parity:
    """What was compared, decisions by position and ticks by id, and how the two sides differ."""

    compared: int = 0
    ticks: int = 0
    by_action: Counter[str] = field(default_factory=Counter)
    by_trigger: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)

    def add(self, other: Parity) -> None:
        """Add the comparison of another deployment."""
        self.compared += other.compared
        self.ticks += other.ticks
        self.differences += other.differences
        self.by_action.update(other.by_action)
        self.by_trigger.update(other.by_trigger)


def compare_deployment(
    deployment: Deployment,
    use_case: str,
    folder: Path,
    *,
    interval: timedelta,
    seed: int,
    overrides: Mapping[str, Any] | None = None,
    where: Mapping[str, Any] | None = None,
) -> Parity:
    """Live through a deployment on both sides; return what was compared.

    Args:
        use_case: of the deployment's contract, as `package.module:contract`; both sides judge by it as it is declared, equal rows
            included.
        folder: for the platform's data.
        overrides: settings of both sides.
        where: settings that say where Postgres and MLflow are; None: embedded, below `folder`.
    """
    deployment = replace(deployment, stream=replace(deployment.stream, contract=load_contract(use_case)))
    ours = Ours(settings_of_replay(default_settings(), interval, seed, overrides))
    replay(deployment, ours, interval=interval, seed=seed)
    settings = {"use_case": use_case, "data_dir": str(folder)} | dict(where or {})
    both = settings | prescribed(interval, seed) | dict(overrides or {})
    lived = _live_through(deployment, both, interval)
    found = compared(lived.decisions, ours.decisions)
    compare_ticks(lived.ticks, {tick.tick_id: _tick(tick) for tick in ours.ticks}, found)
    return found


def compared(lived: Sequence[Decision], replayed: Sequence[Decision]) -> Parity:
    """Compare the decisions of both sides, position by position."""
    found = Parity(
        compared=max(len(lived), len(replayed)),
        by_action=Counter(decision.action.value for decision in lived),
        by_trigger=Counter(decision.trigger_reason for decision in lived),
    )
    if len(lived) != len(replayed):
        found.differences.append(f"{len(lived)} decisions by Dagster, {len(replayed)} replayed")
    for number, (one, other) in enumerate(zip(lived, replayed, strict=False), start=1):
        mine, theirs = _comparable(one), _comparable(other)
        for name in mine:
            if mine[name] != theirs[name]:
                found.differences.append(f"decision {number} ({one.action}): {name}: {mine[name]!r} / {theirs[name]!r}")
    return found


def compare_ticks(lived: Mapping[str, Any], replayed: Mapping[str, Any], found: Parity) -> None:
    """Compare the ticks of both sides, by id: an id covers the window, its counts, and when its last label came."""
    found.ticks += len(lived.keys() | replayed.keys())
    for tick_id in sorted(lived.keys() ^ replayed.keys()):
        found.differences.append(f"tick {tick_id} is only {'of Dagster' if tick_id in lived else 'replayed'}")
    for tick_id in lived.keys() & replayed.keys():
        if lived[tick_id] != replayed[tick_id]:
            found.differences.append(f"tick {tick_id}: {lived[tick_id]!r} / {replayed[tick_id]!r}")


def _tick(row: Any) -> tuple[Any, ...]:
    return row.verdict, row.episode_id, row.window_end, row.num_drifted_features, row.n_predictions


@dataclass(frozen=True)
class _Lived:
    """What Dagster's side came to."""

    decisions: Sequence[Decision]
    ticks: Mapping[str, tuple[Any, ...]]


def _comparable(decision: Decision) -> dict[str, Any]:
    content: dict[str, Any] = {name: value for name, value in to_dict(decision).items() if name not in LEFT_OUT}
    content["gates"] = [
        {name: value for name, value in gate.items() if gate["name"] != LATENCY_GATE or name in {"name", "status"}}
        for gate in content["gates"]
    ]
    return content


def _live_through(deployment: Deployment, settings: dict[str, Any], interval: timedelta) -> _Lived:
    moments = moments_of(deployment, interval)
    with _on_dagster(settings) as dagster:
        platform = dagster.resource.open()
        install(platform, deployment.champion, as_datetime(deployment.start))
        traffic = Sender(deployment, platform)
        previous = as_datetime(deployment.start)
        for moment in moments:
            now = as_datetime(moment)
            traffic.send(moment)
            with clock(now):
                dagster.look(now, previous)
            previous = now
        decided = decision_queries.all_readable(platform.store)
        ticks = recent_ticks(platform.store, len(moments) + 1)
    return _Lived([one for one in decided.values() if one is not None], {tick.tick_id: _tick(tick) for tick in ticks})


class Sender:
    """Sends a deployment's rows and labels up to a moment."""

    def __init__(self, deployment: Deployment, platform: Platform) -> None:
        self._deployment, self._platform = deployment, platform
        self._n_sent = 0
        self._label_time = deployment.stream.label_time.copy()
        self._is_labelled = np.zeros(len(deployment.stream), dtype=np.bool_)

    def send(self, moment: np.datetime64) -> None:
        """Append what has come until the moment to the journals, and copy both to Postgres."""
        stream, platform = self._deployment.stream, self._platform
        stop = int(np.searchsorted(stream.event_time, moment))
        if stop > self._n_sent:
            self._predict(self._n_sent, stop)
            self._n_sent = stop
        known = np.flatnonzero(~self._is_labelled[:stop] & (self._label_time[:stop] <= moment))
        if len(known):
            self._label(known)
        for kind in (prediction_journal(platform.contract), LABEL_JOURNAL):
            ingest(platform.store, kind, platform.settings.data_dir)

    def _predict(self, start: int, stop: int) -> None:
        platform, contract = self._platform, self._platform.contract
        champion = platform.versions.champion()
        features = self._deployment.stream.features(start, stop)
        probability = scoring_of(platform, champion)(features)
        if self._deployment.selection is not Selection.ALL:
            is_allowed = self._deployment.selection.allows(probability, champion.threshold)
            self._label_time[start:stop][~is_allowed] = np.datetime64("NaT")
        kinds = [contract.kinds[name] for name in contract.feature_names]
        values = [column_values(column, kind) for column, kind in zip(features.T, kinds, strict=True)]
        times = [format_time(as_datetime(time)) for time in self._deployment.stream.event_time[start:stop]]
        flagged = (probability >= champion.threshold).astype(int).tolist()
        meta = zip(range(start, stop), times, flagged, probability.tolist(), strict=True)
        entity = self._deployment.stream.entity
        key = (lambda row: (f"e{entity[row]}",)) if contract.has_entity_key else (lambda _: ())
        self._append(
            prediction_journal(contract),
            [
                (
                    prediction_id_of(row),
                    at,
                    champion.version,
                    flag,
                    p,
                    champion.threshold,
                    "parity",
                    1.0,
                    *key(row),
                    *inputs,
                )
                for (row, at, flag, p), *inputs in zip(meta, *values, strict=True)
            ],
        )

    def _label(self, rows: np.ndarray) -> None:
        self._is_labelled[rows] = True
        stream = self._deployment.stream
        times = [format_time(as_datetime(time)) for time in self._label_time[rows]]
        self._append(
            LABEL_JOURNAL,
            [
                (prediction_id_of(row), label, at, at, LABEL_SOURCE, False, None)
                for row, label, at in zip(rows.tolist(), stream.label[rows].tolist(), times, strict=True)
            ],
        )

    def _append(self, kind: Any, lines: Sequence[tuple[Any, ...]]) -> None:
        journal = Journal(kind, self._platform.settings.data_dir, MAX_JOURNAL_BYTES)
        journal.append(lines)
        journal.close()


@dataclass
class _Dagster:
    definitions: dg.Definitions
    instance: dg.DagsterInstance
    resource: PlatformResource
    cursors: dict[str, str | None] = field(default_factory=dict)

    def look(self, now: datetime, previous: datetime) -> None:
        """Evaluate the sensors in the order of a look, and run what they request; one retraining at most."""
        for request in self._requests("probation_sensor"):
            self.instance.add_dynamic_partitions(str(MODEL_VERSIONS.name), [str(request.partition_key)])
            self._run(PROBATION_JOB, partition_key=request.partition_key)
        for _ in self._requests("monitoring_sensor"):
            self._run(MONITORING_JOB)
        for sensor in ("drift_sensor", "performance_sensor"):
            for request in self._requests(sensor):
                self._run(RETRAINING_JOB, run_config=request.run_config, tags=request.tags)
                return
        if is_weekly_due(previous, now):
            weekly = RetrainingRequest(
                trigger=RequestTrigger.schedule, reason="weekly schedule", actor="weekly_retraining"
            )
            self._run(RETRAINING_JOB, run_config=weekly.run_config())

    def _requests(self, name: str) -> Iterator[dg.RunRequest]:
        sensor = self.definitions.resolve_sensor_def(name)
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursors.get(name),
            resources={"platform": self.resource},
            sensor_name=name,
            repository_def=self.definitions.get_repository_def(),
        ) as context:
            answer: Any = sensor(context)
        if isinstance(answer, dg.RunRequest):
            yield answer
        elif isinstance(answer, dg.SensorResult):
            self.cursors[name] = answer.cursor
            yield from answer.run_requests or ()

    def _run(self, job: str, **options: Any) -> None:
        self.definitions.resolve_job_def(job).execute_in_process(
            instance=self.instance, raise_on_error=job != RETRAINING_JOB, **options
        )


@contextmanager
def _on_dagster(settings: Mapping[str, Any]) -> Iterator[_Dagster]:
    with dg.DagsterInstance.ephemeral() as instance:
        try:
            yield _Dagster(build_definitions(**settings), instance, PlatformResource(overrides=dict(settings)))
        finally:
            close_all()


@contextmanager
def clock(now: datetime) -> Iterator[None]:
    """Set the clock of the modules that ask for the time."""

    class Stopped(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return now.astimezone(tz)

    with ExitStack() as stack:
        for module in CLOCKED:
            stack.enter_context(patch(f"{module}.datetime", Stopped))
        yield
