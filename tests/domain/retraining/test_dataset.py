"""Rules of the training set: strictly in time, no leakage, and a digest that anybody can compute again."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfheal.domain.clusters import ENTITY
from selfheal.domain.contract import TRUE_LABEL
from selfheal.domain.retraining.class_counts import EVALUATION, MIN_ROWS_PER_CLASS, PURPOSES, TRAIN
from selfheal.domain.retraining.dataset import (
    DATASET,
    LOGGED,
    ORIGIN,
    ORIGINAL,
    SPLIT,
    WEIGHT,
    OriginalRows,
    part_counts,
    rows_digest,
)
from selfheal.domain.retraining.weighting import CANDIDATE_WEIGHTS
from selfheal.kit.errors import InvalidDataError
from tests.domain.retraining.rows import FEATURES, labelled, shifted, split
from tests.toy_use_case import contract, keyed

# The cut in time


def test_every_evaluation_row_is_later_than_every_training_row() -> None:
    rows = labelled(1_000)
    halves = split(rows)
    times = rows["created_at"]
    is_train = (halves.frame[SPLIT] == TRAIN).to_numpy()
    assert times[is_train].max() < times[~is_train].min()
    assert (len(halves.part(TRAIN)), len(halves.part(EVALUATION))) == (700, 300)
    assert (halves.info.n_train, halves.info.n_evaluation) == (700, 300)
    assert (halves.info.window_start, halves.info.window_end) == (times.iloc[0], times.iloc[-1])
    assert halves.info.n_positive == rows[TRUE_LABEL].sum()


def test_no_row_is_lost_changed_or_in_both_parts() -> None:
    rows = labelled(500)
    halves = split(rows)
    together = pd.concat([halves.part(TRAIN), halves.part(EVALUATION)])
    pd.testing.assert_frame_equal(together[[*FEATURES, TRUE_LABEL]], rows[[*FEATURES, TRUE_LABEL]])


def test_evaluation_gets_the_rows_it_needs_first() -> None:
    halves = split(labelled(500), min_evaluation_rows=200)
    assert (halves.info.n_train, halves.info.n_evaluation) == (300, 200)


def test_rows_without_times_have_no_time_span() -> None:
    info = split(labelled(300).drop(columns="created_at")).info
    assert (info.window_start, info.window_end) == (None, None)


@pytest.mark.parametrize(("n_rows", "min_evaluation_rows", "n_learned"), [(5, 100, 0), (100, 100, 0), (105, 100, 5)])
def test_too_few_rows_are_refused(n_rows: int, min_evaluation_rows: int, n_learned: int) -> None:
    told = rf"^of {n_rows} labelled rows, the {n_learned} rows to fit .* wait for more labels \({n_rows} now\)"
    with pytest.raises(InvalidDataError, match=told):
        split(labelled(n_rows), min_evaluation_rows)


@pytest.mark.parametrize(("part", "slot"), [(TRAIN, slice(0, 700)), (EVALUATION, slice(700, 1_000))])
@pytest.mark.parametrize("label", [0, 1])
def test_a_part_with_too_few_rows_of_a_class_is_refused(part: str, slot: slice, label: int) -> None:
    rows = labelled(1_000)
    rows[TRUE_LABEL] = np.tile([0, 1], 500)
    rows.iloc[slot, rows.columns.get_loc(TRUE_LABEL)] = 1 - label
    few = MIN_ROWS_PER_CLASS - 1
    rows.iloc[slot.start : slot.start + few, rows.columns.get_loc(TRUE_LABEL)] = label
    told = rf"rows {re.escape(PURPOSES[part])} need 1 more of class {label} \(there are {few}\): at least 10"
    with pytest.raises(InvalidDataError, match=told):
        split(rows)
    rows.iloc[slot.start + few, rows.columns.get_loc(TRUE_LABEL)] = label
    assert split(rows).info.n_train == 700


@settings(max_examples=15)
@given(st.integers(1, 60), st.integers(0, 10_000))
def test_predictions_of_the_same_moment_are_never_parted(n_per_moment: int, seed: int) -> None:
    rows = labelled(500, seed)
    rows["created_at"] = rows["created_at"].iloc[0] + pd.to_timedelta(np.arange(500) // n_per_moment, unit="s")
    halves = split(rows)
    is_train = (halves.frame[SPLIT] == TRAIN).to_numpy()
    times = halves.frame["created_at"]
    assert times[is_train].max() < times[~is_train].min()
    assert halves.info.n_evaluation >= 150, "those of the same moment come on top"


def test_rows_all_of_one_moment_are_refused() -> None:
    rows = labelled(500)
    rows["created_at"] = rows["created_at"].iloc[0]
    with pytest.raises(InvalidDataError, match="the 0 rows to fit and tune on"):
        split(rows)


def test_what_was_logged_with_a_prediction_stays_with_its_row() -> None:
    rows = labelled(300).assign(
        prediction_id=[f"id{i}" for i in range(300)], probability=0.5, model_version=3, prediction=1
    )
    frame = split(rows).frame
    columns = ["prediction_id", "created_at", "model_version", "probability"]
    assert list(frame.columns) == [*FEATURES, TRUE_LABEL, SPLIT, ORIGIN, WEIGHT, *columns]
    assert frame["prediction_id"].tolist() == rows["prediction_id"].tolist()
    assert set(frame[ORIGIN]) == {LOGGED}
    assert set(split(rows.drop(columns="created_at")).frame[ORIGIN]) == {DATASET}


# Leakage


def test_training_rows_with_the_inputs_of_an_evaluation_row_are_dropped_and_counted() -> None:
    rows = labelled(1_000)
    copies = rows.columns.get_indexer(["temperature_c", "load_ratio", "restarts"])
    rows.iloc[:40, copies] = rows.iloc[-40:, copies].to_numpy()
    rows.iloc[40:45, copies] = rows.iloc[50:55, copies].to_numpy()
    halves = split(rows)
    assert halves.info.n_copied_inputs == 40, "copies within a part give nothing away"
    assert (halves.info.n_train, halves.info.n_evaluation) == (660, 300)
    inputs = [set(halves.part(name)[FEATURES].itertuples(index=False, name=None)) for name in (TRAIN, EVALUATION)]
    assert not {row for row in inputs[0] if not np.isnan(row).any()} & inputs[1]


def test_rows_that_the_contract_says_are_different_cases_all_count() -> None:
    rows, original = labelled(700).round(0), OriginalRows(shifted(2_000, 5).round(0), "version 1")
    kept, dropped = (
        split(rows, use_case=replace(contract, equal_inputs_are_one_case=is_one), original=original)
        for is_one in (False, True)
    )
    assert (kept.info.n_copied_inputs, kept.info.n_train - kept.info.n_original) == (0, 490)
    assert dropped.info.n_copied_inputs > 0
    assert dropped.info.n_original < kept.info.n_original == 2_000


def test_rows_that_are_all_copies_are_refused_saying_so() -> None:
    once = labelled(300)
    rows = pd.concat([once, once], ignore_index=True).assign(created_at=labelled(600)["created_at"])
    with pytest.raises(InvalidDataError, match="300 rows that repeat the inputs of evaluation rows"):
        split(rows, min_evaluation_rows=300)


def test_a_prediction_that_is_there_twice_counts_once() -> None:
    rows = labelled(600).assign(prediction_id=[f"id{i}" for i in range(600)])
    halves = split(pd.concat([rows, rows.iloc[-100:]]).sort_values("created_at", ignore_index=True))
    assert halves.info.n_repeated_predictions == 100
    assert halves.frame["prediction_id"].is_unique
    assert len(halves.frame) == 600


def missing_if_positive(y: np.ndarray) -> np.ndarray:
    """Missing where the label is 1, and else on both sides of anything that could be put in for it."""
    return np.where(y == 1, np.nan, np.where(np.arange(len(y)) % 2, -40.0, 60.0))


@pytest.mark.parametrize("give_away", [lambda y: y * 10.0, lambda y: -y, missing_if_positive])
def test_a_feature_that_gives_the_label_away_is_refused_by_name(give_away: object) -> None:
    rows = labelled(1_000)
    rows["temperature_c"] = give_away(rows[TRUE_LABEL].to_numpy())  # type: ignore[operator]
    with pytest.raises(InvalidDataError, match="'temperature_c' alone tells the classes apart"):
        split(rows)


# The champion's own rows


def test_original_rows_are_for_training_only_come_first_and_have_the_chosen_weight() -> None:
    recent, original = labelled(700), shifted(2_000, 5)
    original[WEIGHT] = np.where(np.arange(2_000) < 1_000, 0.5, 1.0)
    halves = split(recent, original=OriginalRows(original, "version 1"))
    info = halves.info
    assert info.original_weight in CANDIDATE_WEIGHTS[1:], "the same relation, and few recent rows: they help"
    assert (info.n_original, info.n_train, info.n_evaluation) == (2_000, 2_490, 210)
    assert (halves.frame[ORIGIN].iloc[:2_000] == ORIGINAL).all()
    assert set(halves.part(EVALUATION)[ORIGIN]) == {LOGGED}
    weights = halves.frame[WEIGHT]
    assert weights.iloc[0] == 0.5 * info.original_weight, "what counted less then counts less still"
    assert weights.iloc[1_500] == info.original_weight
    assert set(weights.iloc[2_000:]) == {1.0}
    assert set(info.weight_log_losses) == {f"{weight:g}" for weight in CANDIDATE_WEIGHTS}
    assert f"original rows count {info.original_weight:g}" in info.weight_reason


def test_original_rows_of_another_relation_stay_out() -> None:
    info = split(labelled(1_000), original=OriginalRows(shifted(1_000, 5, is_reversed=True), "version 1")).info
    assert (info.original_weight, info.n_original, info.original_source) == (0.0, 0, "version 1")


def test_evaluation_rows_do_not_choose_the_weight() -> None:
    rows, original = labelled(1_000), OriginalRows(shifted(1_000, 5), "version 1")
    chosen = split(rows, original=original).info
    is_late = np.arange(1_000) >= 700
    rows.loc[is_late, TRUE_LABEL] = 1 - rows.loc[is_late, TRUE_LABEL]
    assert split(rows, original=original).info.weight_log_losses == chosen.weight_log_losses


def test_original_rows_with_the_inputs_of_an_evaluation_row_stay_out() -> None:
    rows = labelled(1_000)
    original = OriginalRows(pd.concat([shifted(500, 5), rows.iloc[-200:][[*FEATURES, TRUE_LABEL]]]), "version 1")
    halves = split(rows, original=original)
    if halves.info.original_weight:
        assert halves.info.n_original == 500


# The digest


def test_the_digest_is_the_documented_one() -> None:
    """Written down anew from the docstring: it must be computable without this code."""
    frame = split(labelled(300).assign(prediction_id=[f"id {i} ü" for i in range(300)])).frame
    expected = hashlib.sha256()
    for name in frame.columns:
        expected.update(json.dumps(name).encode())
        column = frame[name]
        if name == "created_at":
            expected.update(b"".join(int(t.timestamp() * 1e6).to_bytes(8, "little", signed=True) for t in column))
        elif name in {SPLIT, ORIGIN, "prediction_id"}:
            expected.update(json.dumps(column.tolist()).encode())
        else:
            expected.update(b"".join(np.float64(np.nan if pd.isna(v) else v).tobytes() for v in column))
    assert rows_digest(frame) == expected.hexdigest()


@pytest.mark.parametrize(
    ("column", "value"),
    [("load_ratio", 0.123), (TRUE_LABEL, None), (SPLIT, EVALUATION), (WEIGHT, 0.5), ("created_at", None)],
)
def test_the_digest_sees_every_column(column: str, value: object) -> None:
    frame = split(labelled(300)).frame
    changed = frame.copy()
    before = changed[column].iloc[0]
    if column == TRUE_LABEL:
        value = 1 - before
    if column == "created_at":
        value = before + pd.Timedelta(microseconds=1)
    changed.loc[0, column] = value
    assert rows_digest(changed) != rows_digest(frame)
    assert rows_digest(frame[frame.columns[::-1]]) != rows_digest(frame)
    assert rows_digest(frame.copy()) == rows_digest(frame)


# Entities


def of_machines(n_rows: int, n_machines: int, seed: int = 1) -> pd.DataFrame:
    """Rows with times and the key of a machine, which come in any order."""
    rows = labelled(n_rows, seed)
    who = np.random.default_rng(seed).integers(n_machines, size=n_rows)
    return rows.assign(**{ENTITY: [f"m{one}" for one in who]})


def test_the_rows_of_an_entity_are_all_on_one_side_and_the_newest_entities_decide() -> None:
    rows = of_machines(900, 150)
    halves = split(rows, use_case=keyed)
    learn, judge = halves.part(TRAIN), halves.part(EVALUATION)
    assert not set(learn[ENTITY]) & set(judge[ENTITY])
    assert len(learn) + len(judge) == 900
    assert 270 <= len(judge) < 300
    newest = rows.groupby(ENTITY)["created_at"].max()
    assert newest[learn[ENTITY].unique()].max() < newest[judge[ENTITY].unique()].min()


def test_a_row_without_a_key_is_split_in_time_as_its_own() -> None:
    rows = of_machines(400, 40)
    alone = rows.assign(**{ENTITY: rows[ENTITY].where(np.arange(400) < 1, None)})
    halves = split(alone, use_case=keyed)
    assert halves.part(TRAIN)["created_at"].max() < halves.part(EVALUATION)["created_at"].min()


def test_the_champions_rows_of_evaluated_entities_are_not_learned_from() -> None:
    rows = of_machines(600, 100)
    old = of_machines(300, 100, seed=2).assign(**{WEIGHT: 1.0})
    halves = split(rows, use_case=keyed, original=OriginalRows(old, "before"))
    kept = halves.part(TRAIN)
    assert not set(kept.loc[kept[ORIGIN] == ORIGINAL, ENTITY]) & set(halves.part(EVALUATION)[ENTITY])


def test_a_training_set_without_keys_has_no_column_for_them() -> None:
    assert ENTITY not in split(labelled(500)).frame.columns


def test_rows_that_recur_with_moved_inputs_are_not_both_learned_from_and_judged_on() -> None:
    rng = np.random.default_rng(3)
    once = labelled(200, seed=3)
    visits = rng.permutation(np.repeat(np.arange(200), 4))
    rows = once.iloc[visits].reset_index(drop=True).assign(created_at=labelled(800)["created_at"], who=visits)
    for name in ("temperature_c", "load_ratio"):
        rows[name] *= np.exp(0.001 * rng.normal(size=800))
    halves = split(rows.drop(columns="who"), min_evaluation_rows=80)
    who = dict(zip(rows["load_ratio"], visits, strict=True))
    learned, judged = ({who[value] for value in halves.part(part)["load_ratio"]} for part in (TRAIN, EVALUATION))
    assert len(learned & judged) < 5
    assert halves.info.n_copied_inputs > 300


def test_counts_of_parts_are_those_of_the_split_by_entity() -> None:
    rows = of_machines(900, 150)
    halves = split(rows, use_case=keyed)
    keys = rows[["created_at", TRUE_LABEL, ENTITY]].assign(inputs_key=pd.array(range(900), dtype="Int64"))
    learn, judge = part_counts(keys, 100)
    assert (learn.n_rows, judge.n_rows) == (halves.info.n_train, halves.info.n_evaluation)
