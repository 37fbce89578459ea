"""The platform's own predictions and labels as a deployment: what would other policies have made of them?

Belongs here: from logged rows to a stream, and which champion it begins with. Does not belong here: reading rows
(`selfheal.adapters.postgres.logged_rows`, `selfheal.adapters.journal_rows`).

Event times are those of the predictions. A label arrives when the first one did, or, where a correction said otherwise, with the
correction; the true label is the one that counts now. What the platform itself promoted meanwhile plays no part: each policy begins with
the champion of `since`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from selfheal.adapters.journal_rows import journal_rows
from selfheal.adapters.postgres import model_versions
from selfheal.adapters.postgres.logged_rows import LABEL_KNOWN_AT, logged_rows
from selfheal.adapters.postgres.promotions import production_at
from selfheal.domain.clusters import entity_keys
from selfheal.domain.contract import TRUE_LABEL, ModelContract
from selfheal.domain.retraining.training import TrainedModel
from selfheal.kit.errors import (
    IntegrityError,
    InvalidDataError,
    ModelRefusedError,
    ServiceUnavailableError,
    TrainingFailedError,
)
from selfheal.simulate.replay.deployment import Deployment, Kind
from selfheal.simulate.replay.models import Model, Rows, Training, model_of, train_champion
from selfheal.simulate.replay.stream import NEVER, UNKNOWN, IntArray, Stream, TimeArray

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.domain.records import ModelVersion
    from selfheal.services.platform import Platform

LOGS = "logs"
"""Name of the deployment in results and reports."""

MAX_ROWS = 1_000_000
"""Newest predictions that are replayed by default: with ten inputs 0.2 GB."""

MAX_LEARN_ROWS = 8_000
"""Newest labelled rows before the replay that a champion learns from, if the one in production then does not load."""

MICROSECOND = np.timedelta64(1, "us")


@dataclass(frozen=True, eq=False)
class LoggedDeployment:
    """A deployment from logs, and in words where its rows and its champion come from. A `runs.Builder` of one deployment."""

    deployment: Deployment
    rows_from: str
    champion_from: str
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", _digest(self.deployment))

    @property
    def description(self) -> str:
        """Return what is replayed, for people."""
        stream = self.deployment.stream
        first, last = (str(time)[:10] for time in (stream.event_time[0], stream.event_time[-1]))
        n_labels = int((stream.true_label != UNKNOWN).sum())
        return f"{len(stream):,} predictions, {first} to {last}, {n_labels:,} labelled; champion: {self.champion_from}"

    def build(self, name: str, _seed: int) -> Deployment:
        """Return the deployment, whatever the seed.

        Raises:
            InvalidDataError: if another one is asked for.
        """
        if name != LOGS:
            raise InvalidDataError(f"there is no deployment {name!r} among the logs; it is called {LOGS!r}")
        return self.deployment

    def fingerprint(self, _name: str) -> str:
        """Return the digest of the rows, and whose model the champion is."""
        return f"{LOGS} {self.digest} {self.champion_from}"


def deployment_of_logs(
    platform: Platform, *, since: datetime, until: datetime, max_rows: int = MAX_ROWS, seed: int = 0
) -> LoggedDeployment:
    """Return the platform's predictions made in (since, until] as a deployment.

    While Postgres is away the rows come from the journal; the champion is then trained on the labelled rows before `since`.

    Args:
        max_rows: the newest so many; the replay then begins later than `since`.

    Raises:
        InvalidDataError: if there are too few rows or labels, with the remedy.
    """
    if since >= until:
        raise InvalidDataError(
            f"--since {since:%Y-%m-%d %H:%M} is not before {until:%Y-%m-%d %H:%M}; name an earlier time"
        )
    try:
        rows = logged_rows(platform.store, since=since, until=until, max_rows=max_rows)
        source = "Postgres"
    except _away() as error:
        rows = _from_journal(platform, since, until, max_rows, error)
        source = "the journal, because Postgres does not answer"
    stream = stream_of(rows, platform.contract, since)
    begins = max(since, rows["created_at"].iloc[0].to_pydatetime())
    champion, learned_from, champion_from = _champion(platform, begins, seed, is_postgres_away=source != "Postgres")
    deployment = Deployment(
        name=LOGS,
        kind=Kind.NATURAL,
        stream=stream,
        champion=champion,
        learned_from=learned_from,
        start=stream.event_time[0],
        end=stream.event_time[-1] + MICROSECOND,
    )
    return LoggedDeployment(deployment, source, champion_from)


def stream_of(rows: pd.DataFrame, contract: ModelContract, since: datetime) -> Stream:
    """Return logged rows as a stream; rows with an unusable derived value are left out.

    Raises:
        InvalidDataError: if there are none, too few labels of a class, or inputs that are no numbers.
    """
    if contract.category_names:
        raise InvalidDataError(
            f"contract {contract.name!r} has categories ({', '.join(contract.category_names)}), and a replay reads numbers only; "
            "name a --world or a --stream of numbers"
        )
    usable, _ = contract.without_unusable(rows)
    if usable.empty:
        raise InvalidDataError(f"no prediction since {since:%Y-%m-%d %H:%M} UTC; name an earlier time with --since")
    event_time = _times(usable["created_at"])
    known = usable[TRUE_LABEL].notna().to_numpy()
    labels = np.where(known, usable[TRUE_LABEL].to_numpy(dtype=np.float64, na_value=0.0), UNKNOWN).astype(np.int8)
    arrived = np.maximum(_times(usable[LABEL_KNOWN_AT]), event_time)  # clocks of two hosts may differ a little
    return Stream(
        contract=contract,
        columns={name: usable[name].to_numpy(dtype=np.float64) for name in contract.input_names},
        event_time=event_time,
        entity=_entities(usable, contract),
        true_label=labels,
        label_time=np.where(known, arrived, NEVER),
        label=labels.copy(),
    )


def _away() -> tuple[type[Exception], ...]:
    """Return the errors of a database that does not answer; SQLAlchemy is imported only where it is used."""
    from sqlalchemy.exc import OperationalError

    return OperationalError, ServiceUnavailableError


def _from_journal(
    platform: Platform, since: datetime, until: datetime, max_rows: int, error: Exception
) -> pd.DataFrame:
    try:
        return journal_rows(platform.contract, platform.settings.data_dir, since=since, until=until, max_rows=max_rows)
    except InvalidDataError as missing:
        raise InvalidDataError(f"Postgres does not answer, and there is no journal here: {missing}") from error


def _times(column: pd.Series) -> TimeArray:
    return np.asarray(column.dt.tz_convert(UTC).dt.tz_localize(None), dtype="M8[us]")


def _entities(rows: pd.DataFrame, contract: ModelContract) -> IntArray:
    """Return whom each row is about: by the key; else equal inputs are one case, unless the contract says otherwise."""
    import pandas as pd

    keyed = entity_keys(rows, contract)
    if keyed is not None:
        own = np.arange(len(rows)) + keyed.max() + 1
        return np.asarray(np.unique(np.where(keyed < 0, own, keyed), return_inverse=True)[1], dtype=np.int64)
    if not contract.equal_inputs_are_one_case:
        return np.arange(len(rows))
    keys = pd.util.hash_pandas_object(rows[list(contract.input_names)], index=False)
    return np.asarray(pd.factorize(keys)[0], dtype=np.int64)


# The champion


def _champion(platform: Platform, at: datetime, seed: int, *, is_postgres_away: bool) -> tuple[Model, Rows, str]:
    """Return the model of the version in production then, its training rows, and in words what it is."""
    version = None if is_postgres_away else _version_at(platform, at)
    why = "Postgres does not answer"
    if version is not None:
        try:
            model, rows = loaded(platform, version, seed)
        except (ModelRefusedError, IntegrityError) as error:
            why = f"version {version.version}, in production then, does not load ({error})"
        else:
            return model, rows, f"version {version.version}, in production then"
    elif not is_postgres_away:
        why = "no version was in production then"
    rows = _rows_before(platform, at, why, is_postgres_away=is_postgres_away)
    try:
        model = train_champion(rows, platform.contract, seed)
    except (InvalidDataError, TrainingFailedError) as error:
        raise InvalidDataError(
            f"{why}, and the {len(rows):,} labelled rows before {at:%Y-%m-%d %H:%M} UTC make no model ({error}); name a later --since"
        ) from error
    return model, rows, f"trained on the {len(rows):,} labelled rows before, since {why}"


def _version_at(platform: Platform, at: datetime) -> ModelVersion | None:
    promotion = production_at(platform.store, at)
    return None if promotion is None else model_versions.model_version(platform.store, promotion.version)


def loaded(platform: Platform, version: ModelVersion, seed: int) -> tuple[Model, Rows]:
    """Return a registered version as a model of a replay, and the rows it learned from.

    Raises:
        ModelRefusedError, IntegrityError: if it, its reference or its training set does not load.
    """
    contract, registry = platform.contract, platform.registry
    shadow = registry.shadow_of_run(version.mlflow_run_id)
    trained = TrainedModel(
        pipeline=registry.load(version),
        threshold=version.threshold,
        params=shadow.params,
        metrics=shadow.metrics,
        reference=registry.reference(version),
        record=shadow.record,
    )
    rows = registry.training_set(version)
    return model_of(Training(trained, rows), contract, seed), _labelled(rows.frame, contract)


def _rows_before(platform: Platform, at: datetime, why: str, *, is_postgres_away: bool) -> Rows:
    contract, data_dir = platform.contract, platform.settings.data_dir
    if is_postgres_away:
        rows = journal_rows(contract, data_dir, since=None, until=at, max_rows=MAX_ROWS)
    else:
        rows = logged_rows(platform.store, since=None, until=at, max_rows=MAX_ROWS)
    usable, _ = platform.contract.without_unusable(rows)
    known = usable[usable[TRUE_LABEL].notna() & (usable[LABEL_KNOWN_AT] <= at)]
    if known.empty:
        raise InvalidDataError(
            f"{why}, and no label was known before {at:%Y-%m-%d %H:%M} UTC to train another champion from; name a later --since"
        )
    return _labelled(known.iloc[-MAX_LEARN_ROWS:], platform.contract)


def _labelled(frame: pd.DataFrame, contract: ModelContract) -> Rows:
    columns = {name: frame[name].to_numpy(dtype=np.float64) for name in contract.input_names}
    return Rows(columns, frame[TRUE_LABEL].to_numpy(dtype=np.int8))


def _digest(deployment: Deployment) -> str:
    stream = deployment.stream
    arrays = (*stream.columns.values(), stream.event_time, stream.label_time, stream.true_label)
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()
