"""One report on a labelled file: every column, what is wrong with it, and what mends it.

A file is read twice where settings would mend something: as it is read now, and as it would be read with these settings.
What the first reading shows and the second does not, the settings mend; what the second shows must be mended in the file or
in the contract. So a person who follows the report meets no further one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from selfheal.domain.clusters import ENTITY, copies_effect, n_entities, row_clusters
from selfheal.domain.contract import TRUE_LABEL, ModelContract
from selfheal.domain.labelled_file.category_findings import of_category
from selfheal.domain.labelled_file.column_findings import (
    DataFinding,
    breaking_the_contract,
    mended_by_settings,
    missing_codes,
    of_sound_column,
)
from selfheal.domain.labelled_file.columns import accepted_names
from selfheal.domain.labelled_file.data_format import DELIMITER_NAMES, DataFormat
from selfheal.domain.labelled_file.mending import settings_of
from selfheal.domain.labelled_file.tally import (
    MAX_LISTED,
    ColumnTally,
    FileTally,
    IndexTally,
    KeyTally,
    LevelTally,
    TimeTally,
)
from selfheal.domain.labelled_file.wording import lines_shown, rows, setting

FEW_OF_A_CLASS = 20
"""Number of rows of a class below which no training can start: it needs 10 in each of its two parts."""


@dataclass(frozen=True, slots=True)
class DataReport:
    """The findings on a file, in the order of its columns, and the settings that mend what settings can."""

    source: str
    n_rows: int
    findings: tuple[DataFinding, ...]
    settings: Mapping[str, str]

    @property
    def problems(self) -> tuple[DataFinding, ...]:
        """Return what must be mended before the file can be used."""
        return tuple(finding for finding in self.findings if finding.level == "problem")

    @property
    def setting_lines(self) -> tuple[str, ...]:
        """Return the settings as lines of `.env`, which a shell reads too."""
        return tuple(setting(name, value) for name, value in self.settings.items())

    @property
    def problem_lines(self) -> tuple[str, ...]:
        """Return the problems: in one line if there is one, else a line for each below a first one, and the settings."""
        problems = self.problems
        if len(problems) == 1:
            return (f"{self.source}, {problems[0].sentence}",)
        mended = (f"What settings can mend is mended by: {' '.join(self.setting_lines)}",) if self.settings else ()
        return (f"{self.source}: {len(problems)} problems", *(f"- {one.sentence}" for one in problems), *mended)


def report_on(
    source: str, contract: ModelContract, now: tuple[FileTally, DataFormat], mended: tuple[FileTally, DataFormat]
) -> DataReport:
    """Return the report on a file.

    Args:
        source: the file's name.
        contract: what the file must keep.
        now: the file as it is read with the settings in force, and these.
        mended: the file as it is read with the settings of the report, and these; the same as `now` if none is needed.
    """
    (found, given), (then, wanted) = now, mended
    findings = (
        *_of_header(found, given, wanted),
        *_of_columns(found, then, contract, given, wanted),
        *_of_unknown(found, given, wanted),
        *_of_absent(found, contract),
        *_of_misfits(found),
        *_of_classes(then),
        *_of_recurrence(then, contract),
    )
    return DataReport(source, len(found.lines), findings, settings_of(wanted, given))


# The file as a whole


def _of_header(found: FileTally, given: DataFormat, wanted: DataFormat) -> Iterator[DataFinding]:
    if wanted.delimiter != given.delimiter:
        new, old = (DELIMITER_NAMES.get(one, one) for one in (wanted.delimiter, given.delimiter))
        remedy = f"set {setting('DATA_DELIMITER', new)}"
        yield DataFinding("problem", (), f"the fields are separated by {new!r}, not by {old!r}", remedy)
    if not found.match.inputs:
        shown = ", ".join(map(repr, found.match.headers[:MAX_LISTED]))
        remedy = "write the names of the columns there, and see that it is the file of this contract"
        yield DataFinding("problem", (), f"line 1 has no name that the contract knows: {shown}", remedy)


def _of_misfits(found: FileTally) -> Iterator[DataFinding]:
    misfits, n_columns = found.misfits, len(found.match.headers)
    examples = ", ".join(
        f"line {line}: {n_fields} fields under {n_columns} columns ({text!r})"
        for line, (n_fields, text) in zip(misfits.lines, found.misfit_examples, strict=True)
    )
    if examples:
        text = f"{rows(misfits.n_rows)} with other fields than the header: {examples}"
        yield DataFinding("problem", (), text, "correct or remove these rows")


def _of_classes(then: FileTally) -> Iterator[DataFinding]:
    label = then.numbers_of(TRUE_LABEL)
    if label is None or not then.lines:
        return
    values = label.values
    n_positive, n_negative = int((values == 1).sum()), int((values == 0).sum())
    text = f"label: {n_positive:,} of {rows(len(values))} are 1 ({100 * n_positive / len(values):.1f} %), {n_negative:,} are 0"
    if min(n_positive, n_negative) >= FEW_OF_A_CLASS:
        yield DataFinding("ok", (), text)
    else:
        remedy = "a training needs 10 of each among its earlier rows and 10 among its later ones"
        yield DataFinding("note", (), text, remedy)


def _of_recurrence(then: FileTally, contract: ModelContract) -> Iterator[DataFinding]:
    """Yield how many rows recur, if they are so many that the rows are worth clearly fewer."""
    import pandas as pd

    values = then.values_by_name
    if any(name not in values for name in contract.input_names):
        return
    frame = pd.DataFrame({name: values[name] for name in contract.input_names})
    if then.keys is not None:
        frame[ENTITY] = np.where(np.array(then.keys.codes) < 0, np.nan, np.array(then.keys.codes))
    clusters = row_clusters(frame, contract)
    if clusters is None:
        return
    n_rows, n_cases = len(clusters), n_entities(clusters)
    why = "inputs recur, equal or nearly so," if then.keys is None else "entities recur,"
    text = (
        f"{rows(n_rows)} are of {n_cases:,} cases: {why} and together are worth at least "
        f"{n_rows / copies_effect(clusters):,.0f} independent rows"
    )
    if then.keys is not None:
        yield DataFinding("note", (), text)
        return
    remedy = "name the key of whom they are about in the contract (entity), or say so if different cases look alike: equal_inputs_are_one_case=False"
    yield DataFinding("note", (), text, remedy)


# The columns


def _of_columns(
    found: FileTally, then: FileTally, contract: ModelContract, given: DataFormat, wanted: DataFormat
) -> Iterator[DataFinding]:
    """Yield what there is to say of each known column, in the order of the file."""
    match, inputs = found.match, {feature.name: feature for feature in contract.inputs}
    codes = missing_codes(then.values_by_name, contract.inputs)
    for position, header in enumerate(match.headers):
        before, after = found.columns.get(position), then.columns.get(position)
        if isinstance(before, ColumnTally) and isinstance(after, ColumnTally):
            name = match.inputs[position]
            wrong = (
                *mended_by_settings(header, before, given, wanted, is_label=name == TRUE_LABEL),
                *breaking_the_contract(header, after, then.lines, inputs.get(name), codes),
            )
            yield from wrong or (of_sound_column(header, name, after.values),)
        elif isinstance(after, LevelTally):
            yield from of_category(header, after, inputs[match.inputs[position]])
        elif isinstance(before, IndexTally):
            yield _of_index(header, before)
        elif isinstance(before, KeyTally):
            yield DataFinding("ok", (header,), f"the key of {len(before.texts):,} entities, which is no input")
        elif position in match.doubles:
            text = f"stands for {match.doubles[position]!r}, which is there already"
            yield DataFinding("problem", (header,), text, "remove one of the two columns")
        elif position in match.ignored:
            yield DataFinding("ok", (header,), "ignored, as DATA_IGNORED_COLUMNS says")
        if isinstance(before, TimeTally) and before.falls:
            yield _of_times(header, before)


def _of_index(header: str, tally: IndexTally) -> DataFinding:
    doubles = tally.doubles
    if not doubles.n_rows:
        return DataFinding("ok", (header,), "the index of the rows, left out")
    otherwise = f"set {setting('DATA_IGNORED_COLUMNS', header)}" if header.strip() else "remove the column"
    return DataFinding(
        "problem",
        (header,),
        f"index {tally.first_double!r} is there twice ({rows(doubles.n_rows)} in all, {lines_shown(doubles.lines)})",
        f"drop the repeated rows, or {otherwise} if the index means nothing",
    )


def _of_times(header: str, tally: TimeTally) -> DataFinding:
    return DataFinding(
        "note",
        (header,),
        f"holds times that fall in {rows(tally.n_falls)}, first in line {tally.first_fall}, but the order of rows is taken for "
        "time: earlier ones are learned from, later ones judged on",
        "sort the rows by it, oldest first",
    )


def _of_unknown(found: FileTally, given: DataFormat, wanted: DataFormat) -> Iterator[DataFinding]:
    match = found.match
    for position, name in match.lookalikes.items():
        header = match.headers[position]
        text = f"unknown, while the contract's {name!r} has no column"
        remedy = f"if it is that, name it so in line 1, or declare {name!r} with aliases=({header!r},)"
        yield DataFinding("problem", (header,), text, remedy)
    unknown = tuple(match.headers[position] for position in match.unknown if position not in match.lookalikes)
    if unknown:
        value = settings_of(wanted, given)["DATA_IGNORED_COLUMNS"]
        remedy = f"set {setting('DATA_IGNORED_COLUMNS', value)}, or declare what is to be learned from as inputs"
        yield DataFinding("problem", unknown, "unknown to the contract", remedy)


def _of_absent(found: FileTally, contract: ModelContract) -> Iterator[DataFinding]:
    match = found.match
    ignored = {match.headers[position].strip() for position in match.ignored}
    for name in match.missing:
        if name in match.lookalikes.values():
            continue
        names, is_label = accepted_names(name, contract), name == TRUE_LABEL
        hidden = [one for one in names if one in ignored]
        remedy = "add the column" if is_label else "add the column, or take the input out of the contract"
        if hidden:
            remedy = f"take {hidden[0]!r} out of DATA_IGNORED_COLUMNS"
        what = "the label" if is_label else "the input"
        yield DataFinding("problem", (), f"{what} has no column of the name {' or '.join(map(repr, names))}", remedy)
