"""A training set comes back from its file as it was, or not at all."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selfheal.domain.retraining.dataset import OriginalRows, TrainingSet
from selfheal.domain.retraining.snapshot import from_parquet, to_parquet
from selfheal.kit.errors import IntegrityError
from tests.domain.retraining.rows import labelled, shifted, split


def logged_and_original() -> TrainingSet:
    recent = labelled(600).assign(
        prediction_id=[f"id{i}" for i in range(600)], model_version=2, probability=0.123456789012345678
    )
    return split(recent, original=OriginalRows(shifted(500, 5), "version 1"), decision_id="decision")


@pytest.mark.parametrize(
    "made", [logged_and_original(), split(labelled(300)), split(labelled(300).drop(columns="created_at"))]
)
def test_rows_and_what_is_said_of_them_come_back_as_they_were(made: TrainingSet) -> None:
    read = from_parquet(to_parquet(made), "file", made.info.sha256)
    assert read.info == made.info
    pd.testing.assert_frame_equal(read.frame, made.frame)


@pytest.mark.parametrize("column", ["load_ratio", "true_label", "weight", "split"])
def test_a_file_whose_rows_were_changed_is_refused_naming_both_digests(column: str) -> None:
    made = split(labelled(300))
    changed = made.frame.copy()
    changed.loc[5, column] = changed[column].iloc[-1] if column == "split" else 1 - changed.loc[5, column]
    with pytest.raises(IntegrityError, match=f"file has changed: its rows should have sha256 {made.info.sha256}, they"):
        from_parquet(to_parquet(TrainingSet(changed, made.info)), "file")


def test_a_file_that_was_changed_with_its_own_digest_is_refused_by_the_recorded_one() -> None:
    made, other = split(labelled(300)), split(labelled(300, seed=2))
    assert from_parquet(to_parquet(other), "file").info == other.info
    with pytest.raises(IntegrityError, match=made.info.sha256):
        from_parquet(to_parquet(other), "file", made.info.sha256)


def test_what_is_no_training_set_is_refused() -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"a": [1]}), sink)
    for data in (b"", b"not parquet at all", bytes(sink.getvalue())):
        with pytest.raises(IntegrityError, match="file is not a training set"):
            from_parquet(data, "file")
