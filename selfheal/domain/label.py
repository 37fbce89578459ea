"""What a contract says of the outcome: its name, and for which predictions it ever becomes known.

Belongs here: the declarations, and what follows from a declared label policy alone. Does not belong here: which labels are found to
come (`selfheal.domain.monitoring.label_selection`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from selfheal.domain.declarations import Forgiving, forgiving

FloatArray: TypeAlias = npt.NDArray[np.float64]

MIN_SHARE = 0.02
"""Smallest share of predictions that get a label by which labels are weighted: a floor, or single rows would decide."""


@forgiving
@dataclass(frozen=True, slots=True)
class Label(Forgiving):
    """The binary outcome: 1 is the event the model predicts. `name` and `aliases` are accepted in files."""

    name: str
    description: str
    aliases: tuple[str, ...] = ()


@forgiving
@dataclass(frozen=True, slots=True)
class LabelPolicy(Forgiving):
    """Which outcomes ever become known, where somebody knows it. Without it, it is judged by the labels that come.

    `all`: every prediction gets its label in the end, however late; labels that have ceased to come are then late, not missing.
    `random`: a random share gets one, whatever score and outcome; nothing is compared then. `approved_only` and
    `flagged_only`: only predictions below, or only those at or above the threshold; the quality on all of the traffic is then
    not identifiable, and realised metrics, gates and probation are withheld. `random_share`: a random share `of_flagged` of
    the predictions at or above the threshold and `of_others`, as they are accepted on purpose to learn of them; realised
    metrics are weighted by the inverse share, gates and probation, which do not weigh, are withheld.
    """

    labelled: Literal["all", "random", "random_share", "approved_only", "flagged_only"]
    of_flagged: float = 1.0
    of_others: float = 1.0

    def weights(self, is_flagged: npt.NDArray[np.int64]) -> FloatArray | None:
        """Return how many predictions each label stands for, 1 / `MIN_SHARE` at most; None if each stands for itself.

        Args:
            is_flagged: 1 for each labelled prediction at or above the threshold that it was served with.
        """
        if self.labelled != "random_share":
            return None
        shares = np.where(is_flagged == 1, self.of_flagged, self.of_others)
        return np.asarray(1.0 / np.maximum(shares, MIN_SHARE))

    def why_not_judged(self) -> str:
        """Return why no model may be judged by these labels, although they show its quality; empty if it may."""
        if self.labelled != "random_share":
            return ""
        return "not identifiable without weights, which gates and probation do not know: label_policy says random_share"

    def why_not_identifiable(self, is_complete: bool) -> str:
        """Return why labelled rows do not show the quality on all rows; empty if nothing declared says so.

        Args:
            is_complete: almost all predictions that are old enough have a label.
        """
        if self.labelled == "all" and not is_complete:
            return "not identifiable: label_policy says that every prediction gets a label, and most of an age do not have theirs"
        if self.labelled in {"approved_only", "flagged_only"}:
            kept = "below" if self.labelled == "approved_only" else "at or above"
            return f"not identifiable: label_policy says that only predictions {kept} the threshold get a label"
        return ""
