"""Training set: the rows a shadow model learns from and, strictly later, the rows it is judged on; after a change they are the same.

Belongs here: which rows count, where they are split in time, what would be leakage, and the digest of all rows. Does not
belong here: the weight of the champion's own rows relative to the recent ones (`selfheal.domain.retraining.weighting`),
reading the rows (`selfheal.services.retraining`) and their file (`selfheal.domain.retraining.snapshot`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from selfheal.domain.clusters import ENTITY, Clusters, key_clusters, of_newest_entities, recurs_in
from selfheal.domain.contract import TRUE_LABEL
from selfheal.domain.levels import numbers
from selfheal.domain.records import Onset, TrainingSetInfo
from selfheal.domain.retraining.class_counts import CROSS_FITTED, EVALUATION, TRAIN, PartCounts, shortfall
from selfheal.domain.retraining.weighting import choose_weight
from selfheal.kit.errors import InvalidDataError

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.domain.contract import FloatArray, ModelContract

BoolArray = npt.NDArray[np.bool_]

EVALUATION_SHARE = 0.3
"""Of the recent rows, unless they are cross-fitted: all of those teach and judge (`selfheal.domain.retraining.cross_fitting`)."""

SPLIT = "split"

ORIGIN = "origin"
DATASET, LOGGED, ORIGINAL = "dataset", "logged", "original"
"""Origins of a row: a labelled file (at bootstrap), the log of predictions, or the champion's own training set."""

INPUTS_KEY = "inputs_key"
WEIGHT = "weight"
LOG_COLUMNS = ("prediction_id", "created_at", "model_version", "probability")
"""Columns of a logged prediction besides features and label, stored to identify it; never learned from."""

MAX_SINGLE_AUC = 0.999
"""Largest AUC of a single feature; a higher one indicates leakage of the outcome. The best legitimate single features of
credit data reach 0.8."""


@dataclass(frozen=True)
class TrainingSet:
    """All features, `true_label`, `split` (`train`, `evaluation` or both), `origin`, `weight` and `LOG_COLUMNS`, oldest first.

    `ORIGINAL` rows come first, are for training only and count by their `weight`; all others have weight 1.
    """

    frame: pd.DataFrame
    info: TrainingSetInfo

    def part(self, split: str) -> pd.DataFrame:
        """Return the rows of one part (`TRAIN` or `EVALUATION`)."""
        return self.frame[self.frame[SPLIT].isin([split, CROSS_FITTED])]

    @property
    def is_cross_fitted(self) -> bool:
        """Return whether the recent rows are both learned from and judged on."""
        return bool((self.frame[SPLIT] == CROSS_FITTED).any())


@dataclass(frozen=True)
class OriginalRows:
    """The champion's training rows: features, `true_label`, `weight`; and their source, for people."""

    frame: pd.DataFrame
    source: str

    def newest(self, max_rows: int) -> OriginalRows:
        """Return the newest `max_rows` of them."""
        return replace(self, frame=self.frame.iloc[-max_rows:])

    def followed_by(self, rows: Sequence[pd.DataFrame | None], what: str) -> OriginalRows:
        """Return them with these later rows after them, oldest first; `what` names those for people."""
        import pandas as pd

        known = [one for one in rows if one is not None and len(one) > 0]
        if not known:
            return self
        later = pd.concat(known, ignore_index=True)
        frame = pd.concat([self.frame, later], ignore_index=True)
        return OriginalRows(frame, f"{self.source}, and {len(later):,} rows that {what}")


def training_set(
    rows: pd.DataFrame,
    contract: ModelContract,
    *,
    source: str,
    min_evaluation_rows: int,
    label_coverage_pct: float | None,
    decision_id: str | None = None,
    original: OriginalRows | None = None,
    seed: int = 0,
    onset: Onset | None = None,
) -> TrainingSet:
    """Split labelled rows in time: the last 30 %, but at least `min_evaluation_rows`, are for evaluation; after a change all are.

    After a change rows are few, and are cross-fitted: each is learned from, and judged by a model that was fitted without its
    block of time (`selfheal.domain.retraining.cross_fitting`). Else predictions made at the same moment stay together: all of them
    are for evaluation. So do the rows of an entity that the contract has a key of: the entities with the newest rows are for
    evaluation, with all their rows. Without a key, training rows whose inputs occur among the evaluation rows too, or nearly so
    where such rows recur, are dropped, because a model could have memorised them, unless the contract says that they are different
    cases (`equal_inputs_are_one_case`). Original rows join the training part with the weight that `choose_weight` finds; with weight
    0 they are omitted. Those of evaluated entities are dropped alike, unless rows are cross-fitted: there they teach whatever does
    not judge their entity (`training`).

    Args:
        rows: all features and `true_label`, oldest first; with `created_at` if the rows are logged predictions.
        source: where they come from, for people.
        decision_id: the decision to train.
        original: the champion's own training rows, and what it served before a change.
        seed: of the estimators that choose the weight.
        onset: the change of the relation after which `rows` begin.

    Raises:
        InvalidDataError: if a part would have too few rows of a class, or if a feature leaks the label.
    """
    unique = _without_repeated_predictions(rows)
    is_cross_fitted = onset is not None
    if is_cross_fitted:
        learn, judge, n_copied = unique, unique, 0
        refuse_few((_all_counts(unique),), rows)
    else:
        learn, judge = _cut(unique, min_evaluation_rows, key_clusters(unique, contract))
        is_copied = recurs_in(learn, judge, contract)
        refuse_few(_counts(learn, judge, is_copied), rows)
        learn, n_copied = learn[~is_copied], int(is_copied.sum())
    _refuse_give_away(learn, contract)

    old = None if original is None else original.frame
    if old is not None and not is_cross_fitted:
        old = old[~recurs_in(old, judge, contract)]
    choice = None if old is None else choose_weight(learn, old, contract, seed)
    is_mixed = choice is not None and choice.weight > 0
    frames = (
        [_labelled(unique, contract, CROSS_FITTED)]
        if is_cross_fitted
        else [_labelled(learn, contract, TRAIN), _labelled(judge, contract, EVALUATION)]
    )
    if old is not None and choice is not None and is_mixed:
        frames.insert(0, _original(old, contract, choice.weight))
    frame = _joined(frames, contract)
    recent_times = [] if "created_at" not in rows.columns else [unique["created_at"].iloc[i] for i in (0, -1)]
    return TrainingSet(
        frame,
        TrainingSetInfo(
            source=source,
            sha256=rows_digest(frame),
            n_train=int((frame[SPLIT] != EVALUATION).sum()),
            n_evaluation=len(judge),
            n_both=len(unique) if is_cross_fitted else 0,
            n_positive=int(frame[TRUE_LABEL].sum()),
            window_start=recent_times[0].to_pydatetime() if recent_times else None,
            window_end=recent_times[1].to_pydatetime() if recent_times else None,
            label_coverage_pct=label_coverage_pct,
            decision_id=decision_id,
            n_original=int((frame[ORIGIN] == ORIGINAL).sum()),
            original_source=None if original is None else original.source,
            original_weight=None if choice is None else choice.weight,
            weight_log_losses={} if choice is None else choice.log_losses,
            weight_reason="" if choice is None else choice.reason,
            n_repeated_predictions=len(rows) - len(unique),
            n_copied_inputs=n_copied,
            changed_at=None if onset is None else onset.at,
            n_before_change=0 if onset is None else int(frame.loc[frame[ORIGIN] == ORIGINAL, "prediction_id"].count()),
        ),
    )


def with_rows_before(original: OriginalRows | None, before: pd.DataFrame, max_rows: int) -> OriginalRows | None:
    """Return the champion's rows followed by labelled predictions from before a change: they count alike, the newest `max_rows`."""
    import pandas as pd

    if len(before) == 0:
        return original
    weighted = before.assign(**{WEIGHT: 1.0})
    if original is None:
        return OriginalRows(weighted.iloc[-max_rows:], f"{len(before):,} labelled predictions from before the change")
    frames = [original.frame.drop(columns=[*LOG_COLUMNS], errors="ignore"), weighted]
    source = f"{original.source}, and {len(before):,} labelled predictions from before the change"
    return OriginalRows(pd.concat(frames, ignore_index=True).iloc[-max_rows:], source)


def bootstrap_training_set(
    labelled: pd.DataFrame,
    contract: ModelContract,
    *,
    source: str,
    min_evaluation_rows: int,
    decision_id: str | None = None,
) -> TrainingSet:
    """Return the training set of a bootstrap, which has no champion: a rehearsal of it is of the same rows.

    Args:
        labelled: raw inputs and `true_label`, in the order of the file.
        contract: derives the features.
        source: where the rows come from, for people.
        min_evaluation_rows: as for `training_set`.
        decision_id: the decision to train; a rehearsal has none.

    Raises:
        InvalidDataError: as `training_set`.
    """
    rows, left_out = contract.without_unusable(contract.feature_frame(labelled))
    beside = [name for name in (TRUE_LABEL, ENTITY) if name in labelled.columns]
    return training_set(
        rows.assign(**{name: labelled[name] for name in beside}),
        contract,
        source=source_without(source, left_out),
        min_evaluation_rows=min_evaluation_rows,
        label_coverage_pct=None,
        decision_id=decision_id,
    )


def source_without(source: str, left_out: str) -> str:
    """Return the source of rows, with what was left out of them (`ModelContract.without_unusable`), if anything was."""
    return f"{source}; left out: {left_out}" if left_out else source


def evaluation_share(*, is_cross_fitted: bool) -> float:
    """Return the share of the recent rows that are for evaluation."""
    return 1.0 if is_cross_fitted else EVALUATION_SHARE


def part_counts(
    rows: pd.DataFrame, min_evaluation_rows: int, *, is_cross_fitted: bool = False
) -> tuple[PartCounts, ...]:
    """Count the classes in the parts that `training_set` would make of these rows, without reading their features.

    Args:
        rows: `created_at`, `true_label` and `inputs_key` of labelled predictions, oldest first. The key is equal for equal
            inputs; None where equal inputs are different cases. `ENTITY` too if the contract declares a key.
        is_cross_fitted: whether the rows will be, since they begin at a change.
    """
    if is_cross_fitted:
        return (_all_counts(rows),)
    learn, judge = _cut(rows, min_evaluation_rows, key_clusters(rows))
    is_copied = learn[INPUTS_KEY].isin(judge[INPUTS_KEY].dropna())
    if ENTITY in rows.columns:
        unkeyed = judge.loc[judge[ENTITY].isna(), INPUTS_KEY].dropna()
        by_key = learn[ENTITY].isin(judge[ENTITY].dropna())
        is_copied = by_key.where(learn[ENTITY].notna(), learn[INPUTS_KEY].isin(unkeyed))
    return _counts(learn, judge, np.asarray(is_copied, dtype=np.bool_))


def parts_of(rows: pd.DataFrame, contract: ModelContract, min_evaluation_rows: int) -> tuple[PartCounts, PartCounts]:
    """Count the classes in the parts that `training_set` would make of rows with all inputs and `true_label`."""
    learn, judge = _cut(rows, min_evaluation_rows, key_clusters(rows, contract))
    return _counts(learn, judge, recurs_in(learn, judge, contract))


def rows_digest(frame: pd.DataFrame) -> str:
    """Return the sha256 of names and values, column by column, in order.

    The encoding depends on no library, so that the digest can be checked years later. A column is encoded as its name in JSON
    followed by its values: numbers as little-endian binary64, times as microseconds since 1970 in little-endian int64 (the
    lowest int64 for none), everything else as a JSON list of strings.
    """
    digest = hashlib.sha256()
    for name in frame.columns:
        digest.update(json.dumps(str(name)).encode())
        digest.update(_column_bytes(frame[name]))
    return digest.hexdigest()


def _column_bytes(column: pd.Series[Any]) -> bytes:
    import pandas as pd

    if isinstance(column.dtype, pd.DatetimeTZDtype):
        naive = column.dt.tz_convert("UTC").dt.tz_localize(None)
        moments: npt.NDArray[np.int64] = naive.to_numpy().astype("datetime64[us]").astype("<i8")
        return moments.tobytes()
    if pd.api.types.is_numeric_dtype(column):
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        return np.where(np.isnan(values), np.nan, values).astype("<f8").tobytes()
    return json.dumps([None if pd.isna(value) else str(value) for value in column]).encode()


# The split in time


def _without_repeated_predictions(rows: pd.DataFrame) -> pd.DataFrame:
    return rows if "prediction_id" not in rows.columns else rows.drop_duplicates("prediction_id")


def _cut(rows: pd.DataFrame, min_evaluation_rows: int, clusters: Clusters) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows to learn from and those for evaluation: strictly later, or of the entities that came last."""
    wanted = max(round(len(rows) * EVALUATION_SHARE), min_evaluation_rows)
    if clusters is not None:
        is_newest = of_newest_entities(rows, min(wanted, len(rows)), clusters)
        return rows[~is_newest], rows[is_newest]
    n_evaluation = _n_evaluation(rows, wanted)
    return rows.iloc[: len(rows) - n_evaluation], rows.iloc[len(rows) - n_evaluation :]


def _counts(learn: pd.DataFrame, judge: pd.DataFrame, is_copied: BoolArray) -> tuple[PartCounts, PartCounts]:
    kept = learn.loc[~is_copied, TRUE_LABEL]
    return (
        PartCounts(TRAIN, len(kept), int(kept.sum()), int(is_copied.sum())),
        PartCounts(EVALUATION, len(judge), int(judge[TRUE_LABEL].sum())),
    )


def _all_counts(rows: pd.DataFrame) -> PartCounts:
    return PartCounts(CROSS_FITTED, len(rows), int(rows[TRUE_LABEL].sum()))


def _n_evaluation(rows: pd.DataFrame, wanted: int) -> int:
    """Return the size of the evaluation part: `wanted` last rows, and those predicted at the same moment as the first of them."""
    if "created_at" not in rows.columns or wanted >= len(rows):
        return min(wanted, len(rows))
    times = rows["created_at"]
    return int((times >= times.iloc[len(rows) - wanted]).sum())


# What is refused or dropped


def refuse_few(parts: Sequence[PartCounts], rows: pd.DataFrame) -> None:
    """Refuse rows of which a part would have too few of a class.

    Raises:
        InvalidDataError: it says which part lacks how many of which class.
    """
    lacking = shortfall(parts)
    if lacking:
        is_logged = "created_at" in rows.columns
        remedy = f"wait for more labels ({len(rows):,} now)" if is_logged else f"add labelled rows ({len(rows):,} now)"
        raise InvalidDataError(f"of {len(rows):,} labelled rows, {lacking}; {remedy}")


def _refuse_give_away(learn: pd.DataFrame, contract: ModelContract) -> None:
    from sklearn.metrics import roc_auc_score

    labels = learn[TRUE_LABEL].to_numpy()
    for name in contract.feature_names:
        is_category = contract.kinds[name] == "category"
        values = rates_of_levels(numbers(learn[name]), labels) if is_category else numbers(learn[name])
        for filler in (-np.inf, np.inf) if np.isnan(values).any() else (0.0,):
            ranks = np.unique(np.where(np.isnan(values), filler, values), return_inverse=True)[1]
            auc = float(roc_auc_score(labels, ranks))
            if max(auc, 1.0 - auc) >= MAX_SINGLE_AUC:
                raise InvalidDataError(
                    f"feature {name!r} alone tells the classes apart (AUC {max(auc, 1.0 - auc):.4f} on {len(learn):,} "
                    "training rows): it gives the label away, and will not be known when a prediction is asked for; "
                    "take it out of the contract, or find out how the label got into it"
                )


def rates_of_levels(codes: FloatArray, labels: npt.NDArray[np.int64]) -> FloatArray:
    """Return for each row the share of the positive label among the other half's rows of its level, shape (n,).

    A level that the other half does not have says nothing: it gets the share of all rows. So a column of keys, each of its
    own, does not look as if it gave the label away.
    """
    is_even = np.arange(len(codes)) % 2 == 0
    which = np.unique(codes, return_inverse=True)[1]  # a missing value is a level
    found = np.empty(len(codes))
    for half in (is_even, ~is_even):
        counts, events = (np.bincount(which[~half], weights, which.max() + 1) for weights in (None, labels[~half]))
        rates = np.where(counts > 0, events / np.maximum(counts, 1), labels.mean())
        found[half] = rates[which[half]]
    return found


# The frame


def _labelled(rows: pd.DataFrame, contract: ModelContract, split: str) -> pd.DataFrame:
    kept = [name for name in (*LOG_COLUMNS, ENTITY) if name in rows.columns]
    origin = LOGGED if "created_at" in rows.columns else DATASET
    frame = rows[[*contract.feature_names, TRUE_LABEL, *kept]].copy()
    frame[SPLIT], frame[ORIGIN], frame[WEIGHT] = split, origin, 1.0
    return frame


def _original(rows: pd.DataFrame, contract: ModelContract, weight: float) -> pd.DataFrame:
    frame = _labelled(rows, contract, TRAIN)
    frame[ORIGIN], frame[WEIGHT] = ORIGINAL, weight * (rows[WEIGHT] if WEIGHT in rows.columns else 1.0)
    return frame


def _joined(frames: list[pd.DataFrame], contract: ModelContract) -> pd.DataFrame:
    """Concatenate the frames, with the same columns of the same types whatever their origin."""
    import pandas as pd

    features = list(contract.feature_names)
    together = pd.concat(frames, ignore_index=True)
    together = together.reindex(
        columns=[*features, TRUE_LABEL, SPLIT, ORIGIN, WEIGHT, *LOG_COLUMNS, *_entity_column(frames)]
    )
    ids = [None if pd.isna(value) else str(value) for value in together["prediction_id"]]
    return together.assign(
        prediction_id=pd.Series(ids, index=together.index, dtype="object"),
        created_at=pd.to_datetime(together["created_at"], utc=True).dt.as_unit("us"),
    ).astype(
        dict.fromkeys((WEIGHT, "probability"), "float64")
        | contract.dtypes
        | {TRUE_LABEL: "int64", "model_version": "Int64"}
    )


def _entity_column(frames: list[pd.DataFrame]) -> tuple[str, ...]:
    return (ENTITY,) if any(ENTITY in frame.columns for frame in frames) else ()
