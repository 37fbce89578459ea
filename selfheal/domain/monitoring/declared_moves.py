"""Moves that follow from a declared column: of what is computed from it, and of all columns together.

The predicted probability is computed from every feature, and a derived feature from its inputs. Where a column that a person has
declared seasonal moves, they move with it. Such a move is no drift if nothing else has moved: no other column, no missing rate, and
the domain classifier does not tell the window from the reference by the columns that are not computed from it. Harm is measured
elsewhere, and heard as ever.

Belongs here: what follows. What is declared is in `selfheal.domain.monitoring.declarations`, what has moved in `.drift`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from selfheal.domain.derivation import inputs_of_derived

if TYPE_CHECKING:
    from selfheal.domain.contract import ModelContract
    from selfheal.domain.monitoring.seasons import Calm


def followers(contract: ModelContract, declared: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return the derived features that are computed from declared inputs, each with those."""
    if not declared:
        return {}
    sources = {name: tuple(one for one in declared if one in of) for name, of in inputs_of_derived(contract).items()}
    return {name: found for name, found in sources.items() if found and name not in declared}


@dataclass(frozen=True, slots=True)
class DeclaredMoves:
    """Declared columns that have moved, each with who declared it, and the columns that are computed from them."""

    moved: Mapping[str, str]
    sources: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, calm: Calm, moved: Collection[str], score: str) -> DeclaredMoves:
        """Find what can follow.

        Args:
            moved: columns whose values differ from the reference's, significantly if not materially.
            score: the column that is computed from all others.
        """
        declared = {name: by for name, by in calm.declared.items() if name in moved}
        sources = {**calm.followers, score: tuple(declared)}
        of_moved = {name: tuple(one for one in of if one in declared) for name, of in sources.items()}
        return cls(declared, {name: found for name, found in of_moved.items() if found and name not in declared})

    def others(self, names: Sequence[str]) -> list[str]:
        """Return the columns that neither have moved by declaration nor are computed from such a one."""
        return [name for name in names if name not in self.moved and name not in self.sources]

    @property
    def following(self) -> dict[str, str]:
        """Return why a move of each of the columns follows that are computed from what has moved (`seasons.explain`)."""
        return {name: f"with {self._who(found)}, from which it is computed" for name, found in self.sources.items()}

    def together(self, auc: float | None) -> str:
        """Return why all columns together have moved; `auc` is the classifier's on the others, None if there are none."""
        rest = "no column is left without it" if auc is None else f"without it a classifier's AUC is {auc:.2f}"
        return f"with {self._who(tuple(self.moved))}: {rest}"

    def _who(self, names: Sequence[str]) -> str:
        return " and ".join(f"{name} ({self.moved[name]})" for name in names)
