"""Repositories: what the loop reads and records, as interfaces. The loop's stages depend on these alone.

Belongs here: what a stage asks for, in the words of the domain. Does not belong here: how it is stored. In production that is
Postgres and MLflow (`selfheal.services.platform.Platform`); a replay keeps it in memory (`selfheal.simulate.replay.memory`).
An implementation is exact: for the same predictions, labels and times every one returns the same rows, in the same order, with
the same bits. `tests/simulate/replay/test_memory.py` holds them side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

    from selfheal.adapters.postgres.lock_keys import Lock
    from selfheal.domain.contract import ModelContract
    from selfheal.domain.records import (
        Action,
        Alert,
        Decision,
        DriftReport,
        LabelQuarantine,
        ModelVersion,
        PerformanceReport,
        ProbationReport,
        Promotion,
        ProxyMetrics,
        SeasonMemory,
        ShadowModel,
        SpoiledPeriod,
        Stage,
        Triage,
        Window,
    )
    from selfheal.domain.retraining.cross_fitting import CrossFitted
    from selfheal.domain.retraining.dataset import TrainingSet
    from selfheal.domain.retraining.training import TrainedModel
    from selfheal.services.prepared_references import PreparedReferences
    from selfheal.settings import Settings


class TrafficRepository(Protocol):
    """Predictions and labels. A method is described at its query in `selfheal.adapters.postgres`, which has its name."""

    def latest_activity(self, now: datetime) -> tuple[datetime | None, datetime | None]:
        """Return when the newest prediction was made and the newest label received."""

    def window_of(self, model_version: int, since: datetime, until: datetime | None = None) -> Window | None:
        """Return the window from `since` to the version's newest prediction; None if it served nothing since then."""

    def time_of_nth_newest(self, model_version: int, since: datetime, until: datetime, n: int) -> datetime | None:
        """Return when the `n`-th newest of the version's predictions in (since, until] was made."""

    def proxy_metrics(self, window: Window) -> ProxyMetrics:
        """Return aggregates over the whole window."""

    def window_rows(self, window: Window, max_rows: int, *, usable_only: bool = True) -> pd.DataFrame:
        """Return the window's predictions, or a sample of `max_rows`, oldest first."""

    def newest_rows(self, window: Window, n_rows: int) -> pd.DataFrame:
        """Return the newest predictions of the window, oldest first."""

    def newest_of_version(self, model_version: int, max_rows: int) -> pd.DataFrame:
        """Return the version's newest predictions, labelled or not, oldest first."""

    def labelled_rows(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        model_version: int | None = None,
        max_rows: int,
        sound_only: bool = False,
        usable_only: bool = True,
        received_before: datetime | None = None,
    ) -> pd.DataFrame:
        """Return the newest labelled predictions, oldest first, without the labels that are withheld."""

    def labelled_keys(
        self, *, since: datetime | None = None, until: datetime | None = None, max_rows: int
    ) -> pd.DataFrame:
        """Return time, label and a key of the inputs of the newest labelled, sound predictions, oldest first."""

    def count_labels(self, *, since: datetime | None = None, sound_only: bool = False) -> tuple[int, int]:
        """Return the number of predictions since `since`, and how many of them are labelled, for all versions."""

    def count_labels_received_after(
        self, moment: datetime, *, since: datetime | None = None, until: datetime | None = None
    ) -> int:
        """Return the number of labels whose first one arrived after `moment`, of sound predictions in (since, until]."""

    def label_delay_sample(self, model_version: int, since: datetime, until: datetime) -> pd.DataFrame:
        """Return predictions spread over (since, until] with their ages, label delays and labels."""

    def record_spoiled_period(self, tick_id: str, period: SpoiledPeriod) -> None:
        """Record the period of a broken feed that a tick found, once."""

    def spoiled_periods(self, model_version: int | None = None) -> Mapping[str, SpoiledPeriod]:
        """Return the periods of a version's broken feed, or of all, by the tick that found them, oldest first."""

    def accept_spoiled_periods(self, accepted: Mapping[str, str | None]) -> None:
        """Record by which decision each of these periods is accepted now, so that its rows count again; None: by none."""

    def sound_rows(self, model_version: int, since: datetime, until: datetime, max_rows: int) -> pd.DataFrame:
        """Return the version's newest sound predictions in (since, until], labelled or not, oldest first."""

    def newest_labels(self, model_version: int, until: datetime, n_labels: int) -> pd.DataFrame:
        """Return the version's newest labels received until then, oldest first, withheld or not."""

    def label_quarantines(self, model_version: int | None = None) -> Sequence[LabelQuarantine]:
        """Return the quarantines of a version's labels, or of all, oldest first."""

    def record_label_quarantine(self, found: LabelQuarantine) -> None:
        """Record a quarantine as it is now; what is released remains so."""

    def baseline(self) -> pd.DataFrame | None:
        """Return the first reference data; None before the first bootstrap."""


class VersionRepository(Protocol):
    """Model versions, their promotions and probations."""

    def production(self) -> ModelVersion | None:
        """Return the version in production, or None before the first promotion."""

    def champion(self) -> ModelVersion:
        """Return the version in production.

        Raises:
            NoProductionModelError: if there is none.
        """

    def find(self, version: int) -> ModelVersion | None:
        """Return a registered version; None if there is none with this number."""

    def newest(self, limit: int = 100) -> Sequence[ModelVersion]:
        """Return versions, newest first."""

    def register_staging(self, version: ModelVersion) -> None:
        """Record a new version as staging; an existing one is unchanged."""

    def go_live(
        self,
        version: int,
        *,
        replaces: int | None,
        decision: Decision,
        now: datetime,
        probation_until: datetime | None,
        on_step: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Put a version into production by this decision, all or nothing.

        Raises:
            PromotionConflictError: if another version is in production than `replaces`, or the version was already promoted.
            UnknownVersionError: if there is no such version.
        """

    def predecessor(self, version: int) -> int | None:
        """Return the version that this one replaced at its last promotion, rollbacks left out."""

    def has_taken_effect(self, decision_id: str) -> bool:
        """Return whether a version has gone live by this decision."""

    def rollback_of(self, version: int) -> Promotion | None:
        """Return the rollback that ended this version's latest time in production; None if none did."""

    def record_probation(self, report: ProbationReport, promoted_at: datetime, now: datetime) -> None:
        """Record how a probation ended; keep an earlier record."""

    def probation_outcome(self, version: ModelVersion) -> ProbationReport | None:
        """Return how the probation since the version's latest promotion ended; None if it goes on, or there is none."""


class DecisionRepository(Protocol):
    """Decisions, and trainings that failed for what was trained."""

    def record(self, decision: Decision) -> Decision:
        """Record a decision and return the recorded one: an existing decision with the same id is kept."""

    def find(self, decision_id: str) -> Decision | None:
        """Return a decision; None if there is none with this id."""

    def newest(self, limit: int, actions: Collection[Action] = ()) -> Sequence[Decision]:
        """Return decisions (of these actions, if any are given), newest first."""

    def newest_declarations(self) -> Sequence[Decision]:
        """Return the newest declaration (or its withdrawal) of each kind about each column, newest first."""

    def attempts_of(self, episode_id: str, actions: Collection[Action]) -> Sequence[Decision]:
        """Return the decisions of one drift episode, oldest first."""

    def verdicts_on(self, champion_version: int | None, since: datetime) -> Sequence[Decision]:
        """Return the verdicts on challengers of this champion since `since`, oldest first."""

    def newest_verdict(self, champion_version: int, since: datetime) -> Decision | None:
        """Return the newest verdict on a challenger of this champion since `since`; None if there is none."""

    def record_training_failure(self, decision_id: str, reason: str, now: datetime) -> None:
        """Record that the training of a decision failed for what was trained, once."""

    def failed_trainings(self, decision_ids: Collection[str]) -> set[str]:
        """Return those of the decisions whose training failed for what was trained."""

    def write_missing_files(self) -> None:
        """Write the files of recent decisions that have none."""


class TickRow(Protocol):
    """What the loop needs of a recorded tick."""

    @property
    def tick_id(self) -> str: ...
    @property
    def verdict(self) -> str: ...
    @property
    def episode_id(self) -> str | None: ...
    @property
    def window_end(self) -> datetime: ...
    @property
    def num_drifted_features(self) -> int: ...


class TickRepository(Protocol):
    """Monitoring ticks."""

    def record(
        self,
        proxy: ProxyMetrics,
        drift: DriftReport,
        performance: PerformanceReport,
        triage: Triage,
        now: datetime,
    ) -> bool:
        """Record a tick; return False if there already is a tick of the same traffic and labels."""

    def latest(self, model_version: int, min_predictions: int = 0) -> TickRow | None:
        """Return the version's newest tick (with at least `min_predictions`), or None."""

    def season_memory(self, model_version: int) -> SeasonMemory | None:
        """Return what the version's ticks have learned of its seasons; None before the first."""


class AlertRow(Protocol):
    """What the loop needs of an open alert."""

    @property
    def source(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def model_version(self) -> int | None: ...
    @property
    def metrics(self) -> Mapping[str, Any]: ...
    @property
    def created_at(self) -> datetime: ...
    @property
    def acknowledged_at(self) -> datetime | None: ...


class AlertRepository(Protocol):
    """Alerts."""

    def sync(self, triage: Triage, now: datetime) -> list[Alert]:
        """Open, update and resolve monitoring's alerts to match a tick; return the newly opened ones."""

    def open_or_update(self, source: str, model_version: int | None, alert: Alert, now: datetime) -> bool:
        """Open an alert of a source, or update the open one; return whether it was newly opened."""

    def resolve(self, source: str, kind: str, now: datetime) -> bool:
        """Resolve the open alerts of this kind and source; return whether there was one."""

    def open_alerts(self) -> Sequence[AlertRow]:
        """Return the open alerts, newest first."""


class ModelRegistry(Protocol):
    """Trained models, their references and their version numbers; the aliases that follow what is in production."""

    def load(self, model: ModelVersion | ShadowModel) -> Pipeline:
        """Load the fitted pipeline.

        Raises:
            ModelRefusedError: if it may not be served, or does not load.
            IntegrityError: if it is not the recorded one.
        """

    def reference(self, model: ModelVersion | ShadowModel) -> pd.DataFrame:
        """Return the rows frozen with this model: all features, `probability`, `true_label`."""

    def training_set(self, model: ModelVersion | ShadowModel) -> TrainingSet:
        """Return the rows that this model was trained and judged on.

        Raises:
            MissingArtifactError: if they were not stored.
        """

    def cross_fitted(self, model: ModelVersion | ShadowModel) -> CrossFitted | None:
        """Return what the model was judged by; None if its evaluation rows are no training rows."""

    def find_shadow(self, shadow_key: str) -> ShadowModel | None:
        """Return the model that an earlier run of the same training logged, or None."""

    def log_shadow(
        self,
        trained: TrainedModel,
        training_set: TrainingSet,
        *,
        shadow_key: str,
        decision_id: str,
        trigger_reason: str,
        now: datetime,
        run_id: str | None = None,
    ) -> ShadowModel:
        """Store a trained model with its rows; return its record."""

    def shadow_of_run(self, run_id: str) -> ShadowModel:
        """Return the model that a run logged."""

    def register(self, shadow: ShadowModel) -> int:
        """Register a run and return its version number; a run is registered once."""

    def model_bytes(self, model: ModelVersion | ShadowModel) -> bytes:
        """Return the model's file, checked by its digest."""

    def has_answered(self, version: ModelVersion) -> bool:
        """Return whether this machine has served the version with the libraries that are installed now."""

    def has_registered_model(self) -> bool: ...
    def repair_model(self, versions: Sequence[ModelVersion], spare: ShadowModel | None = None) -> list[str]: ...
    def has_version(self, version: int) -> bool: ...
    def alias_version(self, alias: str) -> int | None: ...
    def point_alias(self, alias: str, version: int) -> None: ...
    def drop_alias(self, alias: str) -> None: ...
    def stage_tags(self, limit: int = 100) -> Mapping[int, str | None]: ...
    def tag_stage(self, version: int, stage: Stage) -> None: ...


class LoopPlatform(Protocol):
    """What the stages of the loop run on: settings, contract and repositories."""

    @property
    def settings(self) -> Settings: ...
    @property
    def contract(self) -> ModelContract: ...
    @property
    def traffic(self) -> TrafficRepository: ...
    @property
    def versions(self) -> VersionRepository: ...
    @property
    def decisions(self) -> DecisionRepository: ...
    @property
    def ticks(self) -> TickRepository: ...
    @property
    def alerts(self) -> AlertRepository: ...
    @property
    def registry(self) -> ModelRegistry: ...
    @property
    def prepared_references(self) -> PreparedReferences: ...

    def exclusive(self, lock: Lock) -> AbstractContextManager[None]:
        """Exclude every other process and thread that does the same work."""
