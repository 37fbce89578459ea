"""A deployment to be replayed: a stream, the champion it begins with, and the truth that only oracles and measures may use."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from selfheal.domain.contract import FloatArray
from selfheal.kit.errors import InvalidDataError
from selfheal.simulate.replay.models import Model, Rows
from selfheal.simulate.replay.stream import BoolArray, IntArray, Stream


class Kind(StrEnum):
    """What a policy should do: repair the model, leave it alone, or wait for a feed."""

    HARMFUL = "harmful"
    HARMLESS = "harmless"
    BROKEN = "broken"
    NATURAL = "natural"


class Selection(StrEnum):
    """Which outcomes can become known, given what was served."""

    ALL = "all"
    APPROVED_ONLY = "approved_only"
    FLAGGED_ONLY = "flagged_only"

    def allows(self, probability: FloatArray, threshold: float) -> BoolArray:
        """Return which rows' labels can arrive. A row is flagged where its probability reaches the threshold."""
        if self is Selection.ALL:
            return np.ones(len(probability), dtype=np.bool_)
        is_flagged = probability >= threshold
        return is_flagged if self is Selection.FLAGGED_ONLY else ~is_flagged


@dataclass(frozen=True, eq=False)
class Deployment:
    """One deployment of one champion.

    Args:
        start: when the champion goes into production, at or before the first row.
        end: after the last row.
        change: when the world first differs from that of the champion's rows; None: never, or nobody knows.
        regime: number of the world that each row is of, from 0; rows of one regime may be learned from together.
        learned_from: the champion's training rows.
        selection: of labels by what was served.
    """

    name: str
    kind: Kind
    stream: Stream
    champion: Model
    learned_from: Rows
    start: np.datetime64
    end: np.datetime64
    change: np.datetime64 | None = None
    regime: IntArray | None = None
    selection: Selection = Selection.ALL

    def __post_init__(self) -> None:
        times = self.stream.event_time
        if not (self.start <= times[0] and times[-1] < self.end):
            raise InvalidDataError(
                f"deployment {self.name!r}: its rows ({times[0]} to {times[-1]}) are not within {self.start} and {self.end}"
            )
        if self.change is not None and not self.start <= self.change < self.end:
            raise InvalidDataError(f"deployment {self.name!r}: the change at {self.change} is outside of it")

    @property
    def days(self) -> float:
        """Return its length in days."""
        return float((self.end - self.start) / np.timedelta64(1, "D"))

    @property
    def first_after_change(self) -> int:
        """Return the position of the first row after the change; 0 if there is none."""
        return 0 if self.change is None else int(np.searchsorted(self.stream.event_time, self.change))

    def hours_since_change(self, time: np.datetime64) -> float:
        """Return the hours from the change to a time; without a change, from the start."""
        origin = self.start if self.change is None else self.change
        return float((time - origin) / np.timedelta64(1, "h"))
