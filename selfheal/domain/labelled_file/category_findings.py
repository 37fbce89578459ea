"""What there is to say of a column of levels: what cannot be a level, and what is probably meant otherwise."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from selfheal.domain.features import Feature
from selfheal.domain.labelled_file.column_findings import DataFinding
from selfheal.domain.labelled_file.data_format import parse_number
from selfheal.domain.labelled_file.tally import MAX_LISTED, LevelTally
from selfheal.domain.labelled_file.wording import lines_shown, rows, texts_shown
from selfheal.domain.levels import normal, spelling

MANY_LEVELS = 1_000
"""Number of levels from which a note says how many of them are learned."""

KEY_SHARE = 0.5
"""Share of rows with a level of their own from which a column looks like a key."""


def of_category(header: str, tally: LevelTally, feature: Feature) -> Iterator[DataFinding]:
    """Yield how a column of levels breaks the contract, or else what there is to note; at least one finding."""
    wrong = tuple(_breaking(header, tally, feature))
    yield from wrong or _of_sound(header, tally, feature)


def _breaking(header: str, tally: LevelTally, feature: Feature) -> Iterator[DataFinding]:
    for problem, seen in tally.unfit.items():
        remedy = "correct these rows; a name is needed, no prose"
        yield DataFinding("problem", (header,), f"a text that {problem} in {texts_shown({seen[0]: seen[1]})}", remedy)
    if tally.missing.n_rows and not feature.is_nullable:
        text = f"missing value in {rows(tally.missing.n_rows)} ({lines_shown(tally.missing.lines)})"
        remedy = "fill or remove these rows, or declare the input with is_nullable=True"
        yield DataFinding("problem", (header,), text, remedy)


def _of_sound(header: str, tally: LevelTally, feature: Feature) -> Iterator[DataFinding]:
    levels, n_rows = list(tally.levels), len(tally.codes)
    notes = [*_of_number(levels, n_rows), *_of_spellings(levels), *_of_undeclared(levels, feature), *_of_words(tally)]
    missing = f", missing in {rows(tally.missing.n_rows)}" if tally.missing.n_rows else ""
    if len(levels) < 2:
        which = f"is {levels[0]!r}" if levels else "is missing"
        yield DataFinding("note", (header,), f"{which} in all {rows(n_rows)}{missing}: nothing can be learned from it")
    elif not notes:
        yield DataFinding("ok", (header,), f"read as {feature.name!r}, {len(levels):,} levels{missing}")
    for text, remedy in notes:
        yield DataFinding("note", (header,), text, remedy)


def _of_number(levels: Sequence[str], n_rows: int) -> Iterator[tuple[str, str]]:
    """Yield a note if there are so many levels that they may be keys, or that most are not learned."""
    if len(levels) > max(MAX_LISTED, KEY_SHARE * n_rows):
        remedy = "leave it out, or declare what it tells apart; as the key of whom a row is about it is an entity"
        yield (
            f"{len(levels):,} levels in {rows(n_rows)}: it looks like a key, from which nothing can be learned",
            remedy,
        )
    elif len(levels) > MANY_LEVELS:
        yield f"{len(levels):,} levels in {rows(n_rows)}; the default estimator learns the commonest", "group them"


def _of_spellings(levels: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield a note on levels that are probably one, written in several ways."""
    alike: dict[object, list[str]] = defaultdict(list)
    for level in levels:
        number = parse_number(level.strip(), ".")
        alike[spelling(level) if number is None else number].append(level)
    groups = [group for group in alike.values() if len(group) > 1]
    if groups:
        shown = "; ".join(" and ".join(map(repr, group[:MAX_LISTED])) for group in groups[:MAX_LISTED])
        more = f" and {len(groups) - MAX_LISTED:,} more" if len(groups) > MAX_LISTED else ""
        yield f"levels that differ by their spelling alone: {shown}{more}", "write each level in one way"


def _of_words(tally: LevelTally) -> Iterator[tuple[str, str]]:
    """Yield a note on words that mean a missing value here: in a request they are levels."""
    if tally.missing_words:
        shown = texts_shown(tally.missing_words)
        yield f"read as missing: {shown}", "let clients send null for it; if it is a level, write it in another way"


def _of_undeclared(levels: Iterable[str], feature: Feature) -> Iterator[tuple[str, str]]:
    if not feature.levels:
        return
    declared = {normal(level) for level in feature.levels}
    others = [level for level in levels if normal(level) not in declared]
    if others:
        shown = ", ".join(map(repr, others[:MAX_LISTED]))
        more = f" and {len(others) - MAX_LISTED:,} more" if len(others) > MAX_LISTED else ""
        yield f"levels that the contract does not declare: {shown}{more}", "declare them, or correct these rows"
