"""A stream is refused with a word that names the row, or it is right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from selfheal.kit.errors import InvalidDataError
from selfheal.simulate.replay import stream as stream_module
from tests.simulate.replay.small import HOUR, T0, stream

N = 60
TIMES = T0 + np.arange(N) * HOUR
LABELS = (np.arange(N) % 2).astype(np.int8)


def with_value(values: np.ndarray[Any, Any], row: int, value: Any) -> np.ndarray[Any, Any]:
    changed = values.copy()
    changed[row] = value
    return changed


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"event_time": with_value(TIMES, 17, T0)}, "row 18 .* is earlier than the row before it"),
        ({"event_time": with_value(TIMES, 17, "NaT")}, "row 18 has no event time"),
        ({"true_label": with_value(LABELS, 5, 2)}, "row 6 has the true label 2; use 0 or 1"),
        ({"label": with_value(LABELS, 5, 7)}, "row 6 has the label 7"),
        ({"label_time": with_value(TIMES + HOUR, 9, T0)}, "label of row 10 arrives .* before the row"),
        ({"true_label": np.zeros(N, dtype=np.int8)}, "only 0 rows have the true label 1; a replay needs 10 of each"),
        ({"entity": np.arange(3)}, "'entity' has 3 values for 60 rows"),
        ({"columns": {}}, "lacks the inputs"),
    ],
)
def test_a_stream_that_contradicts_itself_is_refused_by_name(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidDataError, match=told):
        stream(**changes)


def test_a_stream_without_rows_is_refused() -> None:
    with pytest.raises(InvalidDataError, match="no rows"):
        stream(0)


def test_a_stream_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "MAX_ROWS", 59)
    with pytest.raises(InvalidDataError, match="more than 59 rows"):
        stream(60)


def test_rows_at_the_same_time_and_labels_that_never_arrive_are_valid() -> None:
    found = stream(event_time=np.full(N, T0), label_time=np.full(N, "NaT", "M8[us]"))
    assert len(found) == N


def test_nobody_can_change_a_stream() -> None:
    found = stream()
    for array in (*found.columns.values(), found.event_time, found.true_label, found.label_time, found.label):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = array[1]
