"""Reading a stream from a CSV with a column of times and one of labels, in portions, so that memory holds numbers and never text.

Belongs here: the file's words about what is wrong with it. A file without times may have rows at equal distances (`every`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from selfheal.domain.contract import Feature, FloatArray, Label, ModelContract
from selfheal.domain.names import FEATURE_NAME, TAKEN_NAMES
from selfheal.kit.errors import InvalidDataError
from selfheal.simulate.replay.stream import MAX_ROWS, NEVER, UNKNOWN, IntArray, LabelArray, Stream, TimeArray

if TYPE_CHECKING:
    import pandas as pd

PORTION_ROWS = 200_000
"""Rows read at once: with twenty columns some 30 MB as text."""

FIRST_EVENT = np.datetime64("2026-01-01T00:00:00", "us")
"""Event time of the first row of a file without times."""

UNIX_SECONDS = (1e8, 1e11)
"""Numbers in a time column within these limits are seconds since 1970; others are no times."""


MICROSECONDS_PER_MINUTE = 60_000_000


@dataclass(frozen=True)
class Columns:
    """Which columns of a file are what; every other one is an input, unless `excluded`.

    Args:
        label: the true label, 0 or 1; blank where unknown.
        time: the event time, ISO 8601 or Unix seconds. None: rows are `every` so many microseconds apart.
        every: microseconds between rows of a file without times.
        entity: whom a row is about. None: each row is about another one.
        excluded: columns that are no inputs.
        label_delay: microseconds from a row to its label.
    """

    label: str
    time: str | None = None
    every: int | None = None
    entity: str | None = None
    excluded: tuple[str, ...] = ()
    label_delay: int = 0


def columns_of(
    time_column: str | None,
    label: str | None,
    every: float | None,
    label_delay: float,
    excluded: tuple[str, ...],
    entity: str | None = None,
) -> Columns | None:
    """Return which columns are what, as a command names them: `every` in minutes, `label_delay` in hours; None without a label."""
    if label is None:
        return None
    apart = None if every is None else round(every * MICROSECONDS_PER_MINUTE)
    return Columns(label, time_column, apart, entity, excluded, round(label_delay * 60 * MICROSECONDS_PER_MINUTE))


def read_stream(path: Path, columns: Columns, *, name: str | None = None) -> Stream:
    """Read a stream from a CSV; its contract follows from the columns.

    Args:
        name: of the contract; by default the file's.

    Raises:
        InvalidDataError: naming file, line, column, value and remedy.
    """
    header = _header(path)
    inputs = _inputs(path, header, columns)
    portions = _read(path, columns, inputs)
    if not sum(len(labels) for labels in portions.labels):
        raise InvalidDataError(f"{path}: a header but no rows; a replay needs rows")
    values = {column: np.concatenate(portions.values.pop(column)) for column in inputs}
    true_label: LabelArray = np.concatenate(portions.labels)
    n_rows = len(true_label)
    event_time = _event_times(portions, columns, n_rows)
    _refuse_disorder(path, columns, event_time)
    contract = _contract(name or path.stem, columns.label, values)
    delay = np.timedelta64(columns.label_delay, "us")
    return Stream(
        contract=contract,
        columns=dict(zip(contract.input_names, values.values(), strict=True)),
        event_time=event_time,
        entity=np.arange(n_rows) if columns.entity is None else _codes(portions.entities),
        true_label=true_label,
        label_time=np.where(true_label == UNKNOWN, NEVER, event_time + delay),
        label=true_label.copy(),
    )


@dataclass
class _Portions:
    """What has been read, portion by portion."""

    values: dict[str, list[FloatArray]]
    times: list[TimeArray]
    labels: list[LabelArray]
    entities: list[pd.Series]


def _header(path: Path) -> list[str]:
    import pandas as pd

    if not path.is_file():
        raise InvalidDataError(f"{path}: no such file; name a CSV")
    try:
        return [str(name) for name in pd.read_csv(path, nrows=0).columns]
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise InvalidDataError(f"{path}: cannot be read as CSV in UTF-8: {error}") from error


def _inputs(path: Path, header: Sequence[str], columns: Columns) -> list[str]:
    named = {"label": columns.label, "time": columns.time, "entity": columns.entity}
    for role, column in named.items():
        if column is not None and column not in header:
            raise InvalidDataError(f"{path}: no column {column!r} for --{role}; the file has: {', '.join(header)}")
    if (columns.time is None) == (columns.every is None):
        raise InvalidDataError(
            f"{path}: name its column of times with --time, or, if its rows are at equal distances, the distance with --every"
        )
    inputs = [name for name in header if name not in {*named.values(), *columns.excluded}]
    if not inputs:
        raise InvalidDataError(f"{path}: no column is left as an input beside {', '.join(header)}")
    return inputs


def _read(path: Path, columns: Columns, inputs: Sequence[str]) -> _Portions:
    found = _Portions({name: [] for name in inputs}, [], [], [])
    n_rows = 0
    for frame in _frames(path):
        n_rows += len(frame)
        if n_rows > MAX_ROWS:
            raise InvalidDataError(f"{path}: more than {MAX_ROWS:,} rows; replay it in parts")
        for name in inputs:
            found.values[name].append(_numbers(path, frame, name))
        found.labels.append(_labels(path, frame, columns.label))
        found.times.append(np.empty(0, "M8[us]") if columns.time is None else _times(path, frame, columns.time))
        if columns.entity is not None:
            found.entities.append(frame[columns.entity].astype("string"))
    return found


def _frames(path: Path) -> Iterator[pd.DataFrame]:
    import pandas as pd

    try:
        with pd.read_csv(path, chunksize=PORTION_ROWS, low_memory=False) as reader:
            yield from reader
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise InvalidDataError(f"{path}: cannot be read as CSV in UTF-8: {error}") from error


def _numbers(path: Path, frame: pd.DataFrame, name: str) -> FloatArray:
    import pandas as pd

    column = frame[name]
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    is_wrong = (np.isnan(numbers) & column.notna().to_numpy()) | np.isinf(numbers)
    if is_wrong.any():
        row = int(np.argmax(is_wrong))
        raise InvalidDataError(
            f"{path}, line {_line(frame, row)}, column {name!r}: {_shown(column, row)} is not a number; encode the column, or leave it "
            f"out with --exclude {name}"
        )
    return numbers


def _labels(path: Path, frame: pd.DataFrame, name: str) -> LabelArray:
    import pandas as pd

    column = frame[name]
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    is_blank = column.isna().to_numpy()
    is_wrong = ~is_blank & ~np.isin(numbers, (0.0, 1.0))
    if is_wrong.any():
        row = int(np.argmax(is_wrong))
        raise InvalidDataError(
            f"{path}, line {_line(frame, row)}, column {name!r}: {_shown(column, row)} is not a label; use 0 or 1, and leave an "
            f"unknown one blank ({int(is_wrong.sum()):,} such rows among the first {_line(frame, len(frame) - 1) - 1:,})"
        )
    return np.where(is_blank, UNKNOWN, numbers).astype(np.int8)


def _times(path: Path, frame: pd.DataFrame, name: str) -> TimeArray:
    import pandas as pd

    column = frame[name]
    if pd.api.types.is_numeric_dtype(column):
        seconds = column.to_numpy(dtype=np.float64)
        is_wrong = ~((seconds >= UNIX_SECONDS[0]) & (seconds <= UNIX_SECONDS[1]))
        times = np.where(is_wrong, 0.0, seconds * 1e6).astype("int64").astype("M8[us]")
    else:
        parsed = pd.to_datetime(column, errors="coerce", utc=True, format="ISO8601")
        is_wrong = parsed.isna().to_numpy()
        times = parsed.dt.tz_localize(None).to_numpy(dtype="M8[us]")
    if is_wrong.any():
        row = int(np.argmax(is_wrong))
        raise InvalidDataError(
            f"{path}, line {_line(frame, row)}, column {name!r}: {_shown(column, row)} is not a time; use ISO 8601 or Unix seconds, or "
            "give --every if the rows are at equal distances"
        )
    return times


def _line(frame: pd.DataFrame, row: int) -> int:
    """Return the line of the file, counted from the header, in which a row of a portion is (without quoted line breaks)."""
    return int(frame.index[row]) + 2


def _shown(column: pd.Series, row: int) -> str:
    value = column.iloc[row]
    return repr(value.item() if isinstance(value, np.generic) else value)


def _event_times(portions: _Portions, columns: Columns, n_rows: int) -> TimeArray:
    if columns.every is None:
        return np.concatenate(portions.times)
    return FIRST_EVENT + np.arange(n_rows) * np.timedelta64(columns.every, "us")


def _refuse_disorder(path: Path, columns: Columns, times: TimeArray) -> None:
    is_earlier = times[1:] < times[:-1]
    if is_earlier.any():
        row = int(np.argmax(is_earlier)) + 1
        raise InvalidDataError(
            f"{path}, line {row + 2}, column {columns.time!r}: {times[row]} is earlier than the line before ({times[row - 1]}), and so "
            f"are {int(is_earlier.sum()):,} lines in all; sort the file by {columns.time!r}"
        )


def _codes(entities: Sequence[pd.Series]) -> IntArray:
    import pandas as pd

    codes, _ = pd.factorize(pd.concat(entities), use_na_sentinel=False)
    return np.asarray(codes, dtype=np.int64)


def _contract(name: str, label: str, values: dict[str, FloatArray]) -> ModelContract:
    taken: set[str] = set()
    return ModelContract(
        name=_slug(name, set()),
        description=f"Probability that {label} is 1, from the columns of {name}.",
        label=Label("outcome_of_stream", f"column {label} of the file"),
        inputs=tuple(_feature(column, numbers, taken) for column, numbers in values.items()),
        equal_inputs_are_one_case=False,
    )


def _feature(column: str, numbers: FloatArray, taken: set[str]) -> Feature:
    is_known = ~np.isnan(numbers)
    if not is_known.any():
        raise InvalidDataError(f"column {column!r} is blank in every row; leave it out with --exclude {column}")
    low, high = float(numbers[is_known].min()), float(numbers[is_known].max())
    margin = max(high - low, abs(high), 1.0)
    return Feature(
        name=_slug(column, taken),
        kind="float",
        lower=low - margin,
        upper=high + margin,
        unit="as in the file",
        description=f"column {column!r} of the file",
        example=low,
        is_nullable=True,
    )


def _slug(text: str, taken: set[str]) -> str:
    """Return a valid, new name of a feature for a column of any name; add it to `taken`."""
    plain = re.sub(r"[^a-z0-9_]+", "_", text.strip().lower()).strip("_")[:50]
    if not FEATURE_NAME.fullmatch(plain) or plain in TAKEN_NAMES or plain in {"true_label", "outcome_of_stream"}:
        plain = f"x_{plain}".rstrip("_")
    name, number = plain, 2
    while name in taken:
        name, number = f"{plain}_{number}", number + 1
    taken.add(name)
    return name
