"""A deployment's stream: rows in the order of their event times, with the time at which each label becomes known.

Belongs here: the record and what makes it valid. Does not belong here: where rows come from (`stream_file`, `natural`, `build`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from selfheal.domain.contract import FloatArray, ModelContract
from selfheal.kit.errors import InvalidDataError

TimeArray = npt.NDArray[np.datetime64]
IntArray = npt.NDArray[np.int64]
LabelArray = npt.NDArray[np.int8]
BoolArray = npt.NDArray[np.bool_]

UNKNOWN = -1
"""The true label of a row whose outcome nobody knows; such rows are scored, and count in no measure."""

NEVER = np.datetime64("NaT", "us")
"""Arrival time of a label that never arrives."""

MAX_ROWS = 10_000_000
"""Most rows of a stream: with ten inputs 0.8 GB. A longer one is replayed in parts."""

MIN_PER_CLASS = 10
"""Fewest rows of each class; with fewer, no model of the stream could be trained."""


@dataclass(frozen=True, eq=False)
class Stream:
    """Rows in the order of their event times. All arrays have one element per row and are read-only.

    Args:
        contract: declares the inputs.
        columns: the raw inputs by name, float64, NaN where missing.
        event_time: when each row is predicted (datetime64[us], UTC); never decreasing.
        entity: whom the row is about; rows of one entity depend on each other.
        true_label: the outcome, 0 or 1; `UNKNOWN` where nobody knows it.
        label_time: when the label arrives (datetime64[us], UTC); NaT: never.
        label: the label that arrives, which may be wrong; 0 or 1 where one arrives.

    Raises:
        InvalidDataError: if the rows contradict each other; the message names the row and the remedy.
    """

    contract: ModelContract
    columns: Mapping[str, FloatArray]
    event_time: TimeArray
    entity: IntArray
    true_label: LabelArray
    label_time: TimeArray
    label: LabelArray

    def __post_init__(self) -> None:
        self._refuse_shapes()
        _refuse_disorder(self.event_time)
        _refuse_labels(self)
        for array in (*self.columns.values(), *self._arrays().values()):
            array.flags.writeable = False

    def __len__(self) -> int:
        return len(self.event_time)

    @property
    def days(self) -> float:
        """Return the days between the first and the last event."""
        return float((self.event_time[-1] - self.event_time[0]) / np.timedelta64(1, "D"))

    def features(self, start: int, stop: int) -> FloatArray:
        """Return the model's input of the rows `start` to `stop`, shape (rows, features)."""
        return self.contract.matrix({name: self.columns[name][start:stop] for name in self.contract.input_names})

    def features_at(self, rows: IntArray) -> FloatArray:
        """Return the model's input of the rows at these positions, shape (rows, features)."""
        return self.contract.matrix({name: self.columns[name][rows] for name in self.contract.input_names})

    def _arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in {"contract", "columns"}}

    def _refuse_shapes(self) -> None:
        missing = [name for name in self.contract.input_names if name not in self.columns]
        if missing:
            raise InvalidDataError(
                f"the stream lacks the inputs {missing} of contract {self.contract.name!r}; add them"
            )
        n_rows = len(self.event_time)
        if n_rows == 0:
            raise InvalidDataError("the stream has no rows; name a file with rows below its header")
        if n_rows > MAX_ROWS:
            raise InvalidDataError(f"the stream has more than {MAX_ROWS:,} rows; replay it in parts")
        for name, array in (*self.columns.items(), *self._arrays().items()):
            if len(array) != n_rows:
                raise InvalidDataError(f"{name!r} has {len(array):,} values for {n_rows:,} rows; give one per row")


def _refuse_disorder(times: TimeArray) -> None:
    is_missing = np.isnat(times)
    if is_missing.any():
        raise InvalidDataError(f"row {int(np.argmax(is_missing)) + 1:,} has no event time; fill it in or drop the row")
    is_earlier = times[1:] < times[:-1]
    if is_earlier.any():
        row = int(np.argmax(is_earlier)) + 1
        raise InvalidDataError(
            f"row {row + 1:,} ({times[row]}) is earlier than the row before it ({times[row - 1]}), and {int(is_earlier.sum()):,} "
            "rows are in all; sort the rows by their event times"
        )


def _refuse_labels(stream: Stream) -> None:
    arrives = ~np.isnat(stream.label_time)
    for name, labels, allowed in (
        ("true label", stream.true_label, np.isin(stream.true_label, (UNKNOWN, 0, 1))),
        ("label", stream.label, ~arrives | np.isin(stream.label, (0, 1))),
    ):
        if not allowed.all():
            row = int(np.argmin(allowed))
            raise InvalidDataError(
                f"row {row + 1:,} has the {name} {labels[row]}; use 0 or 1, and leave an unknown one blank"
            )
    is_early = stream.label_time < stream.event_time  # NaT compares as False
    if is_early.any():
        row = int(np.argmax(is_early))
        raise InvalidDataError(
            f"the label of row {row + 1:,} arrives at {stream.label_time[row]}, before the row at {stream.event_time[row]}; "
            "a label cannot precede its prediction: correct the times"
        )
    for value in (0, 1):
        n_rows = int((stream.true_label == value).sum())
        if n_rows < MIN_PER_CLASS:
            raise InvalidDataError(
                f"only {n_rows} rows have the true label {value}; a replay needs {MIN_PER_CLASS} of each"
            )
