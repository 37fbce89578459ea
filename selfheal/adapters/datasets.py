"""External labelled data: a CSV that follows the contract, or the contract's synthetic stand-in.

Every row is checked before anything is stored; one report names all problems of a file. Callers get the frame together
with its source, which every output must state.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from selfheal.adapters.csv_files import CheckedFile, check_file
from selfheal.adapters.entity_secret import entity_secret
from selfheal.domain.clusters import ENTITY
from selfheal.domain.contract import TRUE_LABEL, Feature, ModelContract
from selfheal.domain.entity_key import pseudonym
from selfheal.domain.labelled_file.data_format import DataFormat
from selfheal.domain.labelled_file.tally import MAX_LISTED, KeyTally
from selfheal.domain.levels import as_texts, is_level
from selfheal.kit.errors import InvalidDataError, UnfitFileError
from selfheal.kit.word_lists import parse_words

if TYPE_CHECKING:
    import pandas as pd
    import pandera.pandas as pa

    from selfheal.domain.labelled_file.report import DataReport
    from selfheal.settings import Settings

Origin = Literal["real", "synthetic"]
REAL: Origin = "real"
SYNTHETIC: Origin = "synthetic"


@dataclass(frozen=True)
class Dataset:
    """Validated labelled rows: the contract's raw inputs and `true_label`, in the order of the file.

    With the column `ENTITY`, if the file has the contract's key.
    """

    frame: pd.DataFrame
    origin: Origin
    source: str
    sha256: str

    @property
    def description(self) -> str:
        """Return the kind of data, the number of rows and the source, which every output states."""
        kind = "real rows" if self.origin == "real" else "SYNTHETIC stand-in rows"
        return f"{len(self.frame):,} {kind} ({self.source})"


def load_dataset(settings: Settings, contract: ModelContract, *, all_rows: bool = False) -> Dataset:
    """Load the configured data set: `DATA` if set, else the contract's file in DATA_DIR, else the synthetic stand-in.

    Args:
        all_rows: ignore `DATA_ROWS` (a simulation's traffic consists of rows not used for training), and the entities' key.

    Raises:
        UnfitFileError: if the file violates the contract; the message is the report on all of it.
        InvalidDataError: if the file named by `DATA` is missing or no CSV, or if there is neither a file nor a stand-in.
    """
    report, dataset = inspect_dataset(settings, contract, all_rows=all_rows)
    if dataset is None:
        assert report is not None, "what has no report is the stand-in, which raises by itself"
        raise _unfit(report)
    return dataset


def inspect_dataset(
    settings: Settings, contract: ModelContract, *, all_rows: bool = False
) -> tuple[DataReport | None, Dataset | None]:
    """Return the report on the configured file (None for the stand-in), and its rows (None if there are problems).

    Raises:
        InvalidDataError: as `load_dataset`, but for the problems of the report.
    """
    default = settings.data_dir / contract.default_csv
    path = settings.data or (default if default.exists() else None)
    report = None
    if path is not None:
        checked = check_file(path, contract, data_format(settings))
        report = checked.report
        if report.problems:
            return report, None
        frame, origin, source = _frame_of(checked, contract), REAL, path.name
        if checked.tally.keys is not None and not all_rows:
            frame[ENTITY] = _pseudonyms(checked.tally.keys, settings)
    elif contract.synthesize is None:
        raise InvalidDataError(
            f"there is no data for {contract.name!r}: name a labelled CSV in DATA, or put it at {default}"
        )
    else:
        frame = contract.synthesize(settings.synthetic_rows, settings.random_seed)
        frame = _checked(typed_inputs(frame, contract), contract)
        origin, source = SYNTHETIC, f"seed {settings.random_seed}"
    if settings.data_rows is not None and not all_rows:
        frame = frame.iloc[: settings.data_rows].reset_index(drop=True)
    return report, Dataset(frame, origin, source, frame_digest(frame))


def data_format(settings: Settings) -> DataFormat:
    """Return how the settings say that a file is read."""
    return DataFormat(
        delimiter="\t" if settings.data_delimiter == "tab" else settings.data_delimiter,
        decimal="," if settings.data_decimal == "," else ".",
        missing_words=parse_words(settings.data_missing_words),
        true_words=parse_words(settings.data_true_words),
        false_words=parse_words(settings.data_false_words),
        ignored_columns=parse_words(settings.data_ignored_columns),
    )


def load_csv(path: Path, contract: ModelContract, given: DataFormat | None = None) -> pd.DataFrame:
    """Read and validate a labelled CSV: raw inputs (own names or aliases) and the label; an index column is optional.

    Raises:
        UnfitFileError: if columns or rows break the contract; the message is the report on all of them.
        InvalidDataError: if the file cannot be read at all.
    """
    checked = check_file(path, contract, given or DataFormat())
    if checked.report.problems:
        raise _unfit(checked.report)
    return _frame_of(checked, contract)


def frame_digest(frame: pd.DataFrame) -> str:
    """Return the sha256 (hex) over column names and values; the same rows have the same digest in every process."""
    import pandas as pd

    digest = hashlib.sha256(",".join(frame.columns).encode())
    digest.update(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes())
    return digest.hexdigest()


def input_schema(contract: ModelContract) -> pa.DataFrameSchema:
    """Return the pandera schema of raw inputs and label, derived from the contract."""
    import pandera.pandas as pa

    def column(feature: Feature) -> pa.Column:
        if feature.kind == "category":
            fits = pa.Check(is_level, element_wise=True, name="level", error="no text of a level")
            return pa.Column("object", fits, nullable=feature.is_nullable)
        checks = [pa.Check.in_range(feature.lower, feature.upper)]
        if feature.kind != "float":
            checks.append(pa.Check(lambda values: values % 1 == 0, name="whole_number", error="whole number"))
        return pa.Column("float64", checks, nullable=feature.is_nullable)

    columns = {feature.name: column(feature) for feature in contract.inputs}
    columns[TRUE_LABEL] = pa.Column("float64", pa.Check.isin([0, 1]))
    return pa.DataFrameSchema(columns, strict=True, ordered=False)


def typed_inputs(frame: pd.DataFrame, contract: ModelContract) -> pd.DataFrame:
    """Return raw inputs and label of any types with those of the schema."""
    typed = {name: "object" if name in contract.category_names else "float64" for name in frame.columns}
    return frame.astype(typed)


def _pseudonyms(keys: KeyTally, settings: Settings) -> list[str | None]:
    """Return the pseudonym of each row's key, as the API would store it; None where it is blank."""
    secret = entity_secret(settings)
    known = [pseudonym(text, secret) for text in keys.texts]
    return [None if code < 0 else known[code] for code in keys.codes]


def _unfit(report: DataReport) -> UnfitFileError:
    return UnfitFileError("\n".join(report.problem_lines))


def _frame_of(checked: CheckedFile, contract: ModelContract) -> pd.DataFrame:
    """Return the rows of a file without problems, in the contract's order."""
    import pandas as pd

    columns = checked.tally.values_by_name
    frame = pd.DataFrame({name: columns[name].copy() for name in (*contract.input_names, TRUE_LABEL)})
    return frame.astype({TRUE_LABEL: "int64"})


def _checked(frame: pd.DataFrame, contract: ModelContract) -> pd.DataFrame:
    """Return the stand-in in the contract's order if it satisfies the contract."""
    import pandas as pd
    import pandera.pandas as pa

    try:
        input_schema(contract).validate(frame, lazy=True)
    except pa.errors.SchemaErrors as error:
        cases = error.failure_cases
        shown = "; ".join(
            f"column {case.failure_case!r} ({case.check})"
            if pd.isna(case.index)
            else f"row {int(case.index)}, column {case.column!r}: "
            f"{'missing value' if case.check == 'not_nullable' else f'{case.failure_case} ({case.check})'}"
            for case in cases.head(MAX_LISTED).itertuples(index=False, name="Case")
        )
        raise InvalidDataError(
            f"the synthetic stand-in: {len(cases)} values break the contract {contract.name!r}: {shown}; correct "
            "synthesize of the contract"
        ) from None
    levels = {name: as_texts(frame[name].tolist()) for name in contract.category_names if name in frame}
    ordered = frame[[*contract.input_names, TRUE_LABEL]].assign(**levels).reset_index(drop=True)
    return ordered.astype({TRUE_LABEL: "int64"})
