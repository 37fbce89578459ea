"""Seasonal null: a move that the version's own calm traffic has made before, and come back from, is no drift.

By weekday, by day and night, by month and with each campaign the mix of customers moves further than chance among independent
rows would move it. The null of a column's test is therefore not "no move" but "no further, and no longer, than before". A move is
drift if its distance beyond that is significant at the level of the test itself. What "before" is, is learned in two ways:

- Excursions: the time during which one window of one column is beyond its thresholds in one direction. One is remembered only if it
  was reported as drift, came back by itself, and nothing was harmful or broken meanwhile: the largest of them is the limit of the
  next (a nonparametric prediction limit over blocks of time: Hahn and Meeker, 1991, chapter 5). A campaign once seen is known. What
  repeats it within the limits neither is reported nor widens them, so that a slow drift cannot raise its own limit.
- Variance between blocks of time: what the signed rank shift of a window varies more over the days than the sampling of its rows
  explains (the between-block component of a one-way random-effects model: Searle, Casella and McCulloch, 1992). A cycle with that
  standard deviation has an amplitude of the square root of 2 times as much. It explains short moves only, and only if it is sure.

Belongs here: what is remembered, and what it explains. Thresholds for independent rows are in
`selfheal.domain.monitoring.thresholds`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import NamedTuple, TypeVar

from selfheal.domain.records import Excursions, LearnedExcursion, SeasonMemory, Spread, Verdict
from selfheal.kit.durations import span

LONGER = 1.5
"""How much longer than the longest remembered excursion one may last: weekends with a holiday, slower traffic in a window."""

SLACK = timedelta(hours=1)
"""How much longer it may always last: ticks near a threshold flicker."""

SHORTEST_PAUSE, PAUSE_SHARE, LONGEST_PAUSE = timedelta(hours=4), 0.2, timedelta(days=1)
"""Longest pause within an excursion: this share of its length so far, within these bounds. If it stays away longer, it came back."""

SHORT = timedelta(days=1)
"""How long a move may last that only the variance between blocks explains: a cycle's peak, not a new state."""

MIN_DAYS, SURE_STANDARD_ERRORS = 7, 3.0
"""Smallest number of days with traffic from which the variance between blocks is used, and the standard errors by which it must
exceed that of sampling; a block is a day, the length of the longer window."""

MAX_WEIGHT_TICKS = 25_920
"""Number of ticks over which means are taken, the newest: 90 days of 5 minutes."""

REMEMBERED_FOR = timedelta(days=400)
"""How long an excursion is remembered that does not repeat: a year, and a month for its date to move."""

MAX_REMEMBERED = 2_000
"""Number of kinds of excursions that are remembered, the latest: those of 250 columns that move in every way. As many spreads."""

MAX_LEARNED = 8
"""Number of excursions of a kind, the latest, whose times are kept beside the limits that they gave. Each went further or lasted
longer than those before, since nothing else is learned, so that there are few."""

MAX_NAMED = 5
"""Number of kinds in the sentence on what was taken back."""

MISSING = MORE_MISSING, FEWER_MISSING = "more missing", "fewer missing"
"""Directions in which a missing rate moves."""

ALL_COLUMNS = "all columns together"
"""Stands for a column where the domain classifier tests all of them."""


Remembered = TypeVar("Remembered", Excursions, Spread)


class Channel(NamedTuple):
    """What a tick compares: the values of a column in a window, or its missing rate."""

    column: str
    window: str
    is_missing_rate: bool = False


class Kind(NamedTuple):
    """What moves: a column, in which window, in which direction."""

    column: str
    window: str
    direction: str

    @property
    def channel(self) -> Channel:
        """Return what has to be compared to see it."""
        return Channel(self.column, self.window, self.direction in MISSING)


@dataclass(frozen=True, slots=True)
class Move:
    """One window of one column beyond its thresholds.

    Args:
        effect: distance from the reference, 0 to 1.
        margin: distance that is significant at the level of the test.
    """

    kind: Kind
    effect: float
    margin: float


class Position(NamedTuple):
    """Where one window of a column lies, drifted or not.

    Args:
        rank_shift: from the reference, -1 to 1.
        sampling_variance: of the rank shift, from the number of the window's rows alone.
    """

    column: str
    window: str
    rank_shift: float
    sampling_variance: float


@dataclass(frozen=True, slots=True)
class Explained:
    """Which moves of a tick are no drift, with a sentence on each; and what is remembered after the tick."""

    sentences: Mapping[Kind, str] = field(default_factory=dict)
    memory: SeasonMemory | None = None


def margin(n_current: float, n_reference: float, threshold: float) -> float:
    """Return the Kolmogorov-Smirnov distance of two samples whose p-value is `threshold` (its asymptotic tail).

    >>> round(margin(500, 6_000, 0.001), 3)
    0.091
    """
    if not n_current or not n_reference or threshold <= 0:
        return 1.0
    return min(1.0, math.sqrt(math.log(2 / threshold) / 2 * (1 / n_current + 1 / n_reference)))


@dataclass(frozen=True, slots=True)
class Calm:
    """What is known before a tick of the version's traffic.

    Args:
        memory: what its ticks have remembered so far.
        previous: the verdict of its tick before; None if this is the first.
        declared: columns that a person has declared seasonal, each with who and why.
        followers: features that are computed from declared ones, each with those (`declared_moves.followers`).
    """

    memory: SeasonMemory
    previous: Verdict | None = None
    declared: Mapping[str, str] = field(default_factory=dict)
    followers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def explain(
    moves: Sequence[Move],
    calm: Calm,
    now: datetime,
    positions: Iterable[Position] = (),
    compared: Collection[Channel] | None = None,
    following: Mapping[str, str] | None = None,
) -> Explained:
    """Return which moves are explained by what is remembered, and the memory after this tick.

    Args:
        now: end of the tick's window.
        positions: of all columns, from which the variance between blocks is learned unless they have drifted.
        compared: what the tick has compared: whatever else is remembered neither lasts nor returns. None: all.
        following: columns whose values move with a declared one, each with why: their moves are explained if no other is left.
    """
    memory = calm.memory
    spreads = {(one.column, one.window): one for one in memory.spreads}
    is_spoiled = calm.previous in {Verdict.HARMFUL_SHIFT, Verdict.BROKEN_FEED}
    known = {}
    for past in memory.excursions:
        kind, seen = _kind_of(past), replace(past, is_spoiled=past.is_spoiled or (is_spoiled and not past.is_over))
        known[kind] = _settled(seen, memory, now) if compared is None or kind.channel in compared else seen
    begun = {move.kind: _begun(known.get(move.kind), move.kind, now) for move in moves}
    sentences: dict[Kind, str] = {}
    for move in moves:
        declared = None if move.kind.direction in MISSING else calm.declared.get(move.kind.column)
        amplitude = _amplitude(spreads.get(move.kind[:2]))
        sentence = declared or _sentence(begun[move.kind], move, now, amplitude)
        if sentence:
            sentences[move.kind] = sentence
    sentences |= _followed([move.kind for move in moves], sentences, following or {})
    for move in moves:
        under_way = begun[move.kind]
        known[move.kind] = replace(
            under_way,
            until=now,
            effect=max(under_way.effect, move.effect),
            is_reported=under_way.is_reported or move.kind not in sentences,
        )
    drifted = {move.kind[:2] for move in moves if move.kind not in sentences}
    for one in positions:
        if (one.column, one.window) not in drifted and not is_spoiled:
            spreads[one.column, one.window] = _widened(spreads.get((one.column, one.window)), one, now)
    return Explained(
        sentences,
        replace(
            memory,
            until=now,
            excursions=tuple(sorted(_latest(known.values(), now), key=_kind_of)),
            spreads=tuple(_latest(spreads.values(), now)),
        ),
    )


def _followed(kinds: Sequence[Kind], sentences: Mapping[Kind, str], following: Mapping[str, str]) -> dict[Kind, str]:
    """Return why moves follow a declared column; nothing if a move is left that does not."""
    left = [kind for kind in kinds if kind not in sentences]
    if any(kind.column not in following or kind.direction in MISSING for kind in left):
        return {}
    columns = {kind.column for kind in left}
    return {kind: following[kind.column] for kind in kinds if kind.column in columns and kind.direction not in MISSING}


def _latest(remembered: Iterable[Remembered], now: datetime) -> list[Remembered]:
    """Return what is not forgotten, the latest last."""
    dated = [(one.until or now, one) for one in remembered]
    kept = [(until, one) for until, one in dated if now - until <= REMEMBERED_FOR]
    return [one for _, one in sorted(kept, key=lambda pair: pair[0])[-MAX_REMEMBERED:]]


def _widened(spread: Spread | None, at: Position, now: datetime) -> Spread:
    """Return the running means with one position more; those of a window that is in them already remain."""
    before = spread or Spread(at.column, at.window)
    if before.until is not None and now <= before.until:
        return before
    n = before.n_ticks + 1
    weight = 1.0 / min(n, MAX_WEIGHT_TICKS)
    return Spread(
        at.column,
        at.window,
        n,
        before.mean + weight * (at.rank_shift - before.mean),
        before.mean_square + weight * (at.rank_shift**2 - before.mean_square),
        before.sampling_variance + weight * (at.sampling_variance - before.sampling_variance),
        n_days=before.n_days + (before.until is None or now.date() > before.until.date()),
        since=before.since or now,
        until=now,
    )


def _amplitude(spread: Spread | None) -> float:
    """Return how far a cycle moves the column with the variance between blocks; 0 unless there surely is some.

    Days without traffic are no blocks, and ticks beyond those over which means are taken add none.
    """
    if spread is None or spread.n_days < MIN_DAYS or spread.sampling_variance <= 0:
        return 0.0
    variance = max(0.0, spread.mean_square - spread.mean**2)
    n_blocks = spread.n_days * min(1.0, MAX_WEIGHT_TICKS / spread.n_ticks)
    if variance < spread.sampling_variance * (1 + SURE_STANDARD_ERRORS * math.sqrt(2 / n_blocks)):
        return 0.0
    return math.sqrt(2 * (variance - spread.sampling_variance)) + abs(spread.mean)


def _kind_of(one: Excursions) -> Kind:
    return Kind(one.column, one.window, one.direction)


def _settled(one: Excursions, memory: SeasonMemory, now: datetime) -> Excursions:
    """Return an excursion that stays away as over; its limits are learned if it was reported and is no harm and no fault.

    One that the last comparison has seen does not stay away, however long ago that was; but if nothing was compared for long,
    how long it lasted is unknown, and nothing is learned from it. The same window compared again changes nothing.
    """
    last = one.compared_at or memory.until
    if one.is_over or (last is not None and now <= last):
        return one
    is_unwatched = last is not None and now - last > LONGEST_PAUSE
    one = replace(one, compared_at=now, is_spoiled=one.is_spoiled or is_unwatched)
    length = one.until - one.since
    is_seen_by_last = last is None or one.until >= last
    if is_seen_by_last or now - one.until <= min(max(SHORTEST_PAUSE, PAUSE_SHARE * length), LONGEST_PAUSE):
        return one
    if one.is_spoiled:
        return replace(one, is_over=True)
    if not one.is_reported:  # explained: it counts if what is known explains it rather than a declaration
        return replace(one, is_over=True, n_known=one.n_known + (one.known_effect > 0))
    return replace(
        one,
        is_over=True,
        n_known=one.n_known + 1,
        known_effect=max(one.known_effect, one.effect),
        known_seconds=max(one.known_seconds, length.total_seconds()),
        learned=(*one.learned, LearnedExcursion(one.since, one.until, one.effect))[-MAX_LEARNED:],
    )


def _begun(one: Excursions | None, kind: Kind, now: datetime) -> Excursions:
    """Return the excursion that is under way, or a new one that remembers those before."""
    if one is None:
        return Excursions(*kind, since=now, until=now, compared_at=now)
    if not one.is_over:
        return one
    fresh = replace(one, is_over=False, is_spoiled=False, is_reported=False)
    return replace(fresh, since=now, until=now, effect=0.0, compared_at=now)


def _sentence(one: Excursions, move: Move, now: datetime, amplitude: float) -> str | None:
    """Return why the move is no drift; None if it is one."""
    longest, length = timedelta(seconds=one.known_seconds), now - one.since
    if one.known_effect > 0 and length <= LONGER * longest + SLACK:
        if move.effect <= max(one.known_effect, amplitude) + move.margin:
            times = "once" if one.n_known == 1 else f"{one.n_known} times"
            return f"as {times} before, by up to {one.known_effect:.2f} and for up to {span(max(longest, SLACK))}"
    elif amplitude > 0 and length <= SHORT and move.effect <= amplitude + move.margin:
        return f"within its calm variation from day to day, by {amplitude:.2f}"
    return None


# What late labels take back


class Unlearned(NamedTuple):
    """The memory without what was learned in harmful time, and a sentence on that; empty if there was nothing."""

    memory: SeasonMemory
    sentence: str = ""


def unlearned(memory: SeasonMemory, since: datetime, until: datetime) -> Unlearned:
    """Return the memory without what was learned in a time over which labels prove harm, however late they come.

    An excursion of that time gives no limits. Where the last one of a kind is of that time, whatever explained it is forgotten,
    too: it has passed over harm. Variation from day to day is learned anew.
    """
    before = {_kind_of(one): one for one in memory.excursions}
    after = {kind: _without(one, since, until) for kind, one in before.items()}
    forgotten = [kind for kind, one in before.items() if after[kind].known_effect < one.known_effect]
    spreads = tuple(
        one for one in memory.spreads if not _overlaps(one.since or since, one.until or until, since, until)
    )
    sentence = _taken_back(forgotten, since, until) if forgotten else ""
    return Unlearned(replace(memory, excursions=tuple(after.values()), spreads=spreads), sentence)


def _taken_back(forgotten: Sequence[Kind], since: datetime, until: datetime) -> str:
    """Say what is no season any more, and why."""
    named = ", ".join(f"{kind.column} {kind.direction} ({kind.window})" for kind in forgotten[:MAX_NAMED])
    more = f" and {len(forgotten) - MAX_NAMED} more" if len(forgotten) > MAX_NAMED else ""
    time = f"from {since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC"
    return f"no season any more: {named}{more}, as labels show harm {time}"


def _without(one: Excursions, since: datetime, until: datetime) -> Excursions:
    """Return the excursions of a kind without the limits that a harmful time gave, or that passed over it."""
    is_harmed = _overlaps(one.since, one.until, since, until)
    is_dated = bool(one.learned)  # an earlier release stored limits without the times that gave them
    rest = tuple(past for past in one.learned if not (is_harmed or _overlaps(past.since, past.until, since, until)))
    if rest == one.learned and (is_dated or one.known_effect == 0):
        return replace(one, is_spoiled=one.is_spoiled or is_harmed)
    return replace(
        one,
        is_spoiled=one.is_spoiled or is_harmed,
        learned=rest,
        n_known=len(rest),
        known_effect=max((past.effect for past in rest), default=0.0),
        known_seconds=max(((past.until - past.since).total_seconds() for past in rest), default=0.0),
    )


def _overlaps(since: datetime, until: datetime, start: datetime, end: datetime) -> bool:
    return since <= end and until >= start
