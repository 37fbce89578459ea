"""The worlds: what each one is, which half it belongs to, and what measures it.

Belongs here: the list, and the rows that worlds are made of. Does not belong here: building a world (one module of this folder for each kind).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.trust.figures import Figure
from selfheal.adapters.datasets import load_csv
from selfheal.credit_risk import contract

if TYPE_CHECKING:
    import pandas as pd


class Half(StrEnum):
    """Parameters of the loop were chosen on one half of the worlds; the other half judges them."""

    CHOSEN = "chosen"
    JUDGED = "judged"


@dataclass(frozen=True, slots=True)
class Given:
    """What a run was given.

    Args:
        data: labelled rows in the shape of the shipped use case.
        streams: natural streams with their real order.
        is_quick: few tries: a look, not a figure.
        seed: of everything that is drawn.
    """

    data: Path
    streams: tuple[Path, ...] = ()
    is_quick: bool = False
    seed: int = 1

    def tries(self, full: int, quick: int) -> int:
        """Return how often to try."""
        return quick if self.is_quick else full


def halves(data: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows on which parameters of the loop are chosen, and those that judge them: the file's halves, in its order."""
    frame = load_csv(data, contract)
    middle = len(frame) // 2
    return frame.iloc[:middle], frame.iloc[middle:]


Figures = Mapping[str, Figure]


@dataclass(frozen=True, slots=True)
class TrustWorld:
    """A world of the table: `measure` returns its figures by name."""

    name: str
    title: str
    half: Half
    measure: Callable[[Given], Figures]


def all_worlds() -> dict[str, TrustWorld]:
    """Return the worlds by name."""
    from benchmarks.trust import modules

    return {world.name: world for module in modules() for world in module.WORLDS}


def measured(name: str, given: Given) -> tuple[Figures, float]:
    """Return a world's figures and the seconds that they took; for a process of its own."""
    began = time.monotonic()
    return dict(all_worlds()[name].measure(given)), time.monotonic() - began
