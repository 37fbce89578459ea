"""The worlds: what each one is, which half it belongs to, and the pieces of work that measure it.

Belongs here: the list, and the rows that worlds are made of. Does not belong here: building a world (one module of this folder for
each kind), doing the work (`work`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from benchmarks.trust.figures import Figure
from selfheal.adapters.datasets import load_csv
from selfheal.credit_risk import contract
from selfheal.simulate.replay.build import Source, source_of

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


@lru_cache(maxsize=2)
def halves(data: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows on which parameters of the loop are chosen, and those that judge them: the file's halves, in its order."""
    frame = load_csv(data, contract)
    middle = len(frame) // 2
    return frame.iloc[:middle], frame.iloc[middle:]


@lru_cache(maxsize=2)
def judging_source(data: Path) -> Source:
    """Return what deployments are built from: the rows that judge."""
    return source_of(halves(data)[1], contract, data.name)


@dataclass(frozen=True)
class Piece:
    """A part of a world's work that one process does at once: a deployment, or so many tries.

    Args:
        name: unique in its world; words are separated by dots, such as `champion_7_days.ours.3`.
        work: a function of a module; called with what was given and the arguments, it returns plain values, as JSON has them.
        arguments: picklable; their text (`repr`) says all that the result depends on.
        cpu_s: CPU seconds that it takes, roughly: an estimate is made of them before a run.
    """

    name: str
    work: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    cpu_s: float = 1.0


Found: TypeAlias = Mapping[str, Any]
"""What the pieces of a world have returned, by name and in their order; tuples have become lists."""

Figures: TypeAlias = Mapping[str, Figure]


@dataclass(frozen=True, slots=True)
class TrustWorld:
    """A world of the table: `pieces` are the work, and `figures` what it comes to, by name."""

    name: str
    title: str
    half: Half
    pieces: Callable[[Given], Sequence[Piece]]
    figures: Callable[[Given, Found], Figures]


def all_worlds() -> dict[str, TrustWorld]:
    """Return the worlds by name."""
    from benchmarks.trust import modules

    return {world.name: world for module in modules() for world in module.WORLDS}


BLOCK_TRIES = 50
"""Tries of one piece, where there are many: minutes at most, so that little is lost when a run is stopped."""


def blocks(n_tries: int, size: int = BLOCK_TRIES) -> Iterator[tuple[int, int]]:
    """Yield the first and the last try, exclusive, of each block.

    >>> list(blocks(120))
    [(0, 50), (50, 100), (100, 120)]
    """
    yield from ((start, min(start + size, n_tries)) for start in range(0, n_tries, size))


def found_by(found: Found, prefix: str) -> list[Any]:
    """Return what the pieces have returned whose names begin with these words."""
    return [value for name, value in found.items() if name == prefix or name.startswith(f"{prefix}.")]


def flat(found: Found, prefix: str) -> list[Any]:
    """Return the elements of the lists that those pieces have returned."""
    return [one for values in found_by(found, prefix) for one in values]
