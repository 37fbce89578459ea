"""Signs in a category that its sender has changed: levels spelled otherwise, cut off, renamed, or replaced by codes.

A population gets new levels too, a shop or a product; these are drift and no fault. A fault's levels stand where known ones stood.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from selfheal.domain.levels import normal, spelling
from selfheal.domain.monitoring.shift import Sample, share_p_value

if TYPE_CHECKING:
    from selfheal.domain.features import Feature

SURE = 1e-6
"""Level at which a share certainly differs, as in `selfheal.domain.monitoring.feed`."""

ALIKE = 1e-4
"""Level below which two shares are not that of one level under two names."""

REPLACED_POINTS = 60.0
"""Rise, in percentage points, of the share of rows with levels that the reference does not have, from which codes were changed."""

MIN_PREFIX_CHARACTERS = 3
"""Shortest beginning of a level that is one cut off rather than another level."""

GONE_SHARE = 0.05
"""Part of its share in the reference that a renamed level may still have: of a window only the newest rows are renamed."""

MAX_SHOWN = 3


class _Level(NamedTuple):
    """A level, and how many rows have it in the reference and now."""

    name: str
    n_then: int
    n_now: int


class _Levels(NamedTuple):
    """The levels of both sides: those that the reference or the contract has, and those that are new."""

    known: Sequence[_Level]
    new: Sequence[_Level]
    n_now: int
    n_then: int

    @classmethod
    def of(cls, now: Sample, then: Sample, declared: Sequence[str]) -> _Levels:
        """Count the levels of both sides, compared in their normal form."""
        counts_now, counts_then = _counts(now), _counts(then)
        known = dict.fromkeys((*counts_then, *map(normal, declared)))
        return cls(
            [_Level(name, counts_then.get(name, 0), counts_now.get(name, 0)) for name in known],
            [_Level(name, 0, n) for name, n in counts_now.items() if name not in known],
            now.n_known,
            then.n_known,
        )

    def is_new_for_sure(self, n_rows: int) -> bool:
        """Return whether so many rows would not all be in the window by chance."""
        return share_p_value(n_rows, self.n_now, 0, self.n_then) < SURE

    def has_lost_for_sure(self, level: _Level) -> bool:
        """Return whether a level has certainly fewer rows than before."""
        is_less = level.n_now * self.n_then < level.n_then * self.n_now
        return is_less and share_p_value(level.n_now, self.n_now, level.n_then, self.n_then) < SURE

    def pct(self, n_rows: int) -> float:
        """Return a percentage of the window's known values."""
        return 100.0 * n_rows / self.n_now


def _counts(sample: Sample) -> Mapping[str, int]:
    found: dict[str, int] = {}
    for text, n_rows in zip(sample.levels or (), sample.counts.tolist(), strict=False):
        found[normal(text)] = found.get(normal(text), 0) + int(n_rows)
    return found


def faults_of_levels(feature: Feature, now: Sample, then: Sample) -> Iterator[str]:
    """Yield a sentence for each sign of a fault in a category; at most one kind of sign, the plainest."""
    if now.levels is None or then.levels is None or not now.n_known or not then.n_known:
        return
    levels = _Levels.of(now, then, feature.levels)
    found = _respelt(levels) or _replaced(levels, then) or _renamed(levels)
    if found is not None:
        yield f"{feature.name}: {found}"


def _respelt(levels: _Levels) -> str | None:
    """Return that levels of the reference come in another spelling, or cut off."""
    by_spelling = {spelling(level.name): level for level in levels.known}
    pairs = []
    for new in levels.new:
        meant = by_spelling.get(spelling(new.name)) or _cut_off(new, levels)
        if meant is not None:
            pairs.append((meant, new))
    n_rows = sum(new.n_now for _, new in pairs)
    if not pairs or not levels.is_new_for_sure(n_rows):
        return None
    pairs.sort(key=lambda pair: -pair[1].n_now)
    shown = ", ".join(f"{meant.name!r} is now {new.name!r}" for meant, new in pairs[:MAX_SHOWN])
    more = f" and {len(pairs) - MAX_SHOWN} more" if len(pairs) > MAX_SHOWN else ""
    return (
        f"levels are spelled otherwise than in the reference, in {levels.pct(n_rows):.0f} % of the rows: {shown}{more}"
    )


def _cut_off(new: _Level, levels: _Levels) -> _Level | None:
    """Return the one level of which a new one is the beginning, if it has lost rows; None if there is none, or several."""
    if len(new.name.strip()) < MIN_PREFIX_CHARACTERS:
        return None
    whole = [level for level in levels.known if level.name.startswith(new.name.strip()) and level.name != new.name]
    losing = [level for level in whole if levels.has_lost_for_sure(level)]
    return losing[0] if len(losing) == 1 else None


def _replaced(levels: _Levels, then: Sample) -> str | None:
    """Return that most rows have levels which the reference does not have, where new ones are rare."""
    n_new = sum(level.n_now for level in levels.new)
    n_usual = int((then.counts == 1).sum())  # of as many further rows so many have a new level (Good, 1953)
    if levels.pct(n_new) - 100.0 * n_usual / levels.n_then < REPLACED_POINTS:
        return None
    if share_p_value(n_new, levels.n_now, n_usual, levels.n_then) > SURE:
        return None
    examples = sorted(levels.new, key=lambda level: -level.n_now)[:MAX_SHOWN]
    shown = ", ".join(repr(level.name) for level in examples)
    return f"{levels.pct(n_new):.0f} % of the rows have levels that the reference does not have ({shown}); have its codes changed?"


def _renamed(levels: _Levels) -> str | None:
    """Return that a level is gone and a new one has taken exactly its place."""
    gone = [
        level
        for level in levels.known
        if levels.has_lost_for_sure(level) and level.n_now * levels.n_then <= GONE_SHARE * level.n_then * levels.n_now
    ]
    pairs = []
    for new in sorted(levels.new, key=lambda level: -level.n_now):
        if not levels.is_new_for_sure(new.n_now):
            continue
        alike = [level for level in gone if share_p_value(new.n_now, levels.n_now, level.n_then, levels.n_then) > ALIKE]
        if alike:
            meant = min(alike, key=lambda level: abs(level.n_then * levels.n_now - new.n_now * levels.n_then))
            gone.remove(meant)
            pairs.append((meant, new))
    if not pairs:
        return None
    shown = ", ".join(
        f"{meant.name!r} ({100 * meant.n_then / levels.n_then:.0f} %) is gone and {new.name!r} ({levels.pct(new.n_now):.0f} %) is new"
        for meant, new in pairs[:MAX_SHOWN]
    )
    return f"{shown}; has the sender renamed it?"
