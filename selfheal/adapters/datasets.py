"""External labelled data: a CSV that follows the contract, or the contract's synthetic stand-in.

Every row is checked before anything is stored; errors name file, line, column and value. Callers get the frame together
with its source, which every output must state.
"""

from __future__ import annotations

import csv
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from selfheal.domain.contract import TRUE_LABEL, Feature, ModelContract
from selfheal.kit.errors import InvalidDataError

if TYPE_CHECKING:
    import pandas as pd
    import pandera.pandas as pa

    from selfheal.settings import Settings

INDEX_NAMES = {"", "id", "index"}
"""Headers (in lower case) of a row index; so is `Unnamed: ...`, pandas' name for a blank header, which Kaggle uses."""

MISSING_TEXTS = {"", "NA", "NaN", "nan", "null", "NULL"}
MAX_LISTED = 5
"""Largest number of problems listed in one error; a file may have a hundred thousand of the same kind."""

MAX_SHOWN = 80
"""Largest number of characters of a row in an error."""


@dataclass(frozen=True)
class Dataset:
    """Validated labelled rows: the contract's raw inputs and `true_label`, in the order of the file."""

    frame: pd.DataFrame
    origin: Literal["real", "synthetic"]
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
        all_rows: ignore `DATA_ROWS` (a simulation's traffic consists of rows not used for training).

    Raises:
        InvalidDataError: if the file named by `DATA` is missing or violates the contract, or if there is neither a file
            nor a stand-in.
    """
    default = settings.data_dir / contract.default_csv
    path = settings.data or (default if default.exists() else None)
    origin: Literal["real", "synthetic"]
    if path is not None:
        frame, origin, source = load_csv(path, contract), "real", path.name
    elif contract.synthesize is None:
        raise InvalidDataError(
            f"there is no data for {contract.name!r}: name a labelled CSV in DATA, or put it at {default}"
        )
    else:
        frame = contract.synthesize(settings.synthetic_rows, settings.random_seed)
        frame = _checked(frame.astype("float64"), contract, "the synthetic stand-in", "row")
        origin, source = "synthetic", f"seed {settings.random_seed}"
    if settings.data_rows is not None and not all_rows:
        frame = frame.iloc[: settings.data_rows].reset_index(drop=True)
    return Dataset(frame, origin, source, frame_digest(frame))


def load_csv(path: Path, contract: ModelContract) -> pd.DataFrame:
    """Read and validate a labelled CSV: raw inputs (own names or aliases) and the label; an index column is optional.

    Raises:
        InvalidDataError: if the file is invalid; the message names file, line, column, value and remedy.
    """
    text = _read_text_frame(path)
    names = _resolve_columns(path, list(text.columns), contract)
    _refuse_duplicate_index(path, text)
    frame = _to_numbers(path, text[list(names)].rename(columns=names), names)
    return _checked(frame, contract, str(path), "line", {new: old for old, new in names.items()})


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
        checks = [pa.Check.in_range(feature.lower, feature.upper)]
        if feature.kind == "int":
            checks.append(pa.Check(lambda values: values % 1 == 0, name="whole_number", error="whole number"))
        return pa.Column("float64", checks, nullable=feature.is_nullable)

    columns = {feature.name: column(feature) for feature in contract.inputs}
    columns[TRUE_LABEL] = pa.Column("float64", pa.Check.isin([0, 1]))
    return pa.DataFrameSchema(columns, strict=True, ordered=False)


def _read_text_frame(path: Path) -> pd.DataFrame:
    """Return the file's fields as text, indexed by the line on which each row ends; blank lines are skipped."""
    import pandas as pd

    if not path.exists():
        raise InvalidDataError(f"{path}: no such file; see data/README.md for how to get it, or unset DATA")
    if path.is_dir():
        raise InvalidDataError(f"{path} is a directory; DATA must name the CSV file in it")
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            headers = next(reader, [])
            if not headers:
                raise InvalidDataError(f"{path}, line 1: blank; expected a header here and rows below it")
            for fields in reader:
                if not "".join(fields).strip():
                    continue
                if len(fields) != len(headers):
                    raise InvalidDataError(
                        f"{path}, line {reader.line_num}: {len(fields)} fields under {len(headers)} columns "
                        f"({','.join(fields)[:MAX_SHOWN]!r}); correct or remove this row"
                    )
                rows.append(fields)
                lines.append(reader.line_num)
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        place = f", after line {lines[-1]}" if lines else ""
        raise InvalidDataError(f"{path}{place}: cannot be read as CSV in UTF-8: {error}") from error
    if not rows:
        raise InvalidDataError(f"{path}: a header but no rows")
    return pd.DataFrame(rows, columns=headers, index=lines)


def _resolve_columns(path: Path, headers: list[str], contract: ModelContract) -> dict[str, str]:
    """Map each header to its canonical name; the index column is left out."""
    names: dict[str, str] = {}
    for header in headers:
        if _is_index(header):
            continue
        name = TRUE_LABEL if contract.is_label_name(header) else contract.canonical_name(header)
        if name is None:
            known = ", ".join((*contract.input_names, contract.label.name))
            raise InvalidDataError(f"{path}, line 1: unknown column {header!r}; remove it, or name it one of: {known}")
        if name in names.values():
            raise InvalidDataError(f"{path}, line 1: column {header!r} stands for {name!r}, which is there already")
        names[header] = name
    missing = [name for name in (*contract.input_names, TRUE_LABEL) if name not in names.values()]
    if missing:
        accepted = {f.name: " or ".join((f.name, *f.aliases)) for f in contract.inputs}
        accepted[TRUE_LABEL] = " or ".join((contract.label.name, *contract.label.aliases))
        wanted = "; ".join(accepted[name] for name in missing)
        raise InvalidDataError(f"{path}, line 1: missing column(s): {wanted}")
    return names


def _is_index(header: str) -> bool:
    return header.strip().lower() in INDEX_NAMES or header.startswith("Unnamed:")


def _refuse_duplicate_index(path: Path, text: pd.DataFrame) -> None:
    for position, header in enumerate(text.columns):
        if _is_index(header):
            given = text.iloc[:, position]
            given = given[given != ""]
            doubles = given[given.duplicated()]
            if len(doubles):
                raise InvalidDataError(
                    f"{path}, line {doubles.index[0]}, index column {header!r}: {doubles.iloc[0]!r} is there twice "
                    f"({len(doubles)} duplicates in all); drop the repeated rows, or the index column if it means nothing"
                )


def _to_numbers(path: Path, text: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    import pandas as pd

    original = {new: old for old, new in names.items()}
    frame = pd.DataFrame(index=text.index)
    for name in text.columns:
        numbers = [_number(value) for value in text[name]]
        bad = [position for position, number in enumerate(numbers) if number is None]
        if bad:
            shown = ", ".join(f"line {text.index[i]}: {text[name].iloc[i][:MAX_SHOWN]!r}" for i in bad[:MAX_LISTED])
            raise InvalidDataError(
                f"{path}, column {original[name]!r}: not a number ({len(bad)} rows): {shown}; leave a missing value blank"
            )
        frame[name] = pd.Series(numbers, index=text.index, dtype="float64")
    return frame


def _number(text: str) -> float | None:
    """Parse a field exactly; return NaN for a missing value, None if it is not a number."""
    value = text.strip()
    if value in MISSING_TEXTS:
        return math.nan
    try:
        number = float(value)
    except ValueError:
        return None
    return (
        None if math.isnan(number) or "_" in value else number
    )  # Python parses 1_000 as 1000, which a CSV does not mean


def _checked(
    frame: pd.DataFrame,
    contract: ModelContract,
    source: str,
    place: Literal["line", "row"],
    original: dict[str, str] | None = None,
) -> pd.DataFrame:
    """Return the frame in the contract's order if it satisfies the contract; its index is each row's `place`."""
    import pandas as pd
    import pandera.pandas as pa

    try:
        input_schema(contract).validate(frame, lazy=True)
    except pa.errors.SchemaErrors as error:
        cases = error.failure_cases
        shown = "; ".join(
            f"column {case.failure_case!r} ({case.check})"
            if pd.isna(case.index)
            else f"{place} {int(case.index)}, column {(original or {}).get(case.column, case.column)!r}: "
            f"{'missing value' if case.check == 'not_nullable' else f'{case.failure_case} ({case.check})'}"
            for case in cases.head(MAX_LISTED).itertuples(index=False, name="Case")
        )
        raise InvalidDataError(
            f"{source}: {len(cases)} values break the contract {contract.name!r}: {shown}; correct or remove these rows"
        ) from None
    ordered = frame[[*contract.input_names, TRUE_LABEL]].reset_index(drop=True)
    return ordered.astype({TRUE_LABEL: "int64"})
