"""A labelled CSV, opened and read in batches: text or gzip, any delimiter, one tally per column.

Belongs here: bytes, encodings and CSV syntax, with a sentence for each way in which a file is no CSV. What stands in the
fields is judged in `selfheal.domain.labelled_file`.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import IO, Any

from selfheal.domain.contract import TRUE_LABEL, ModelContract
from selfheal.domain.labelled_file.columns import ColumnMatch, likely_delimiter, match_columns
from selfheal.domain.labelled_file.data_format import DELIMITERS, DataFormat
from selfheal.domain.labelled_file.mending import mended_format
from selfheal.domain.labelled_file.report import DataReport, report_on
from selfheal.domain.labelled_file.tally import (
    ColumnTally,
    FileTally,
    IndexTally,
    KeyTally,
    LevelTally,
    Tally,
    TimeTally,
)
from selfheal.kit.errors import InvalidDataError

GZIP = b"\x1f\x8b"

NOT_CSV = {
    b"PK\x03\x04": "a zip archive or an Excel sheet; unpack it, or save the sheet as CSV",
    b"PAR1": "a Parquet file; save it as CSV",
    b"BZh": "packed by bzip2; unpack it, or pack it by gzip",
    b"\xfd7zXZ": "packed by xz; unpack it, or pack it by gzip",
    b"\x28\xb5\x2f\xfd": "packed by zstd; unpack it, or pack it by gzip",
    b"\xff\xfe": "text in UTF-16; save it as UTF-8",
    b"\xfe\xff": "text in UTF-16; save it as UTF-8",
}
"""What a file is that begins so, and the remedy."""

BATCH_ROWS = 4_096
"""Rows that are in memory as text at a time."""

MAX_HEADER_CHARACTERS = 1_000_000
"""Largest length of the first line: some 30,000 columns."""


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """A file's report, and the file as it is read with the settings in force."""

    report: DataReport
    tally: FileTally


def check_file(path: Path, contract: ModelContract, data_format: DataFormat) -> CheckedFile:
    """Read a file, and a second time with what settings would mend, and report on both (`report_on`).

    Raises:
        InvalidDataError: if it is not there, is no CSV in UTF-8, or has no header or no row.
    """
    guessed = replace(data_format, delimiter=_delimiter_of(path, contract, data_format))
    found = _read(path, contract, guessed)
    wanted = mended_format(found, contract, guessed)
    mended = found if wanted == guessed else _read(path, contract, wanted)
    return CheckedFile(report_on(str(path), contract, (found, data_format), (mended, wanted)), found)


def _read(path: Path, contract: ModelContract, data_format: DataFormat) -> FileTally:
    """Read the whole file into a tally of each column."""
    with _opened(path) as file:
        reader = csv.reader(file, delimiter=data_format.delimiter, strict=True, skipinitialspace=True)
        with _syntax_in_our_words(path, reader):
            headers = next(reader, [])
            if not "".join(headers).strip():
                raise InvalidDataError(f"{path}, line 1: blank; expected a header here and rows below it")
            match = match_columns(headers, contract, data_format.ignored_columns)
            tally = FileTally(match, _tallies(match, data_format, contract))
            rows = _sorted_out(reader, len(headers), tally)
            while batch := list(islice(rows, BATCH_ROWS)):
                tally.add([fields for _, fields in batch], [line for line, _ in batch])
    if not tally.lines and not tally.misfits.n_rows:
        raise InvalidDataError(f"{path}: a header but no rows; expected a row per case below line 1")
    return tally


def _tallies(match: ColumnMatch, data_format: DataFormat, contract: ModelContract) -> dict[int, Tally]:
    def tally_of(name: str) -> Tally:
        kind = contract.kinds.get(name)
        if kind == "category":
            return LevelTally(data_format.missing_reader())
        return ColumnTally(data_format.field_reader(is_label=name == TRUE_LABEL, is_flag=kind == "bool"))

    of_inputs = {position: tally_of(name) for position, name in match.inputs.items()}
    others = {position: TimeTally() for position in (*match.ignored, *match.unknown)}
    keys: dict[int, Tally] = {} if match.entity is None else {match.entity: KeyTally()}
    return {**of_inputs, **others, **keys, **{position: IndexTally() for position in match.index}}


def _sorted_out(reader: Any, n_columns: int, tally: FileTally) -> Iterator[tuple[int, list[str]]]:
    """Yield each row that fits the header, with the line on which it ends; skip blank lines and count the others."""
    for fields in reader:
        if not "".join(fields).strip():
            continue
        if len(fields) == n_columns:
            yield reader.line_num, fields
        else:
            tally.add_misfit(fields, reader.line_num)


def _delimiter_of(path: Path, contract: ModelContract, data_format: DataFormat) -> str:
    """Return the delimiter of the first line: the one in force, or the one with which more of its names are known."""
    with _opened(path) as file:
        header_line = file.readline(MAX_HEADER_CHARACTERS)
    return likely_delimiter(header_line.strip(), contract, data_format.delimiter, DELIMITERS)


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    """Open a CSV as text, unpacked if it is packed by gzip.

    Raises:
        InvalidDataError: if it is not there, cannot be read, or is something else; also from within the block.
    """
    if not path.exists():
        raise InvalidDataError(f"{path}: no such file; see data/README.md for how to get it, or unset DATA")
    if path.is_dir():
        raise InvalidDataError(f"{path} is a directory; DATA must name the CSV file in it")
    try:
        with _binary(path) as binary, io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as text:
            yield text
    except UnicodeDecodeError:
        raise InvalidDataError(f"{path}, {_undecodable(path)}") from None
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise InvalidDataError(f"{path}: a damaged or incomplete gzip file; get it again") from None
    except OSError as error:
        raise InvalidDataError(f"{path}: cannot be read ({error.strerror}); see that it may be") from error


def _binary(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        beginning = file.read(max(map(len, NOT_CSV)))
    for magic, what in NOT_CSV.items():
        if beginning.startswith(magic):
            raise InvalidDataError(f"{path}: no CSV but {what}")
    return gzip.open(path, "rb") if beginning.startswith(GZIP) else path.open("rb")  # type: ignore[return-value]


def _undecodable(path: Path) -> str:
    """Return where the first byte is that is not UTF-8, and the remedy."""
    with _binary(path) as binary:
        for number, line in enumerate(binary, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = line[error.start]
                return f"line {number}: byte 0x{byte:02x} is not UTF-8; save the file as UTF-8"
    return "its end: not UTF-8; save the file as UTF-8"


@contextmanager
def _syntax_in_our_words(path: Path, reader: Any) -> Iterator[None]:
    """Say what is wrong with the syntax, and the remedy, for each of the three messages of Python's parser."""
    try:
        yield
    except csv.Error as error:
        message = str(error)
        if "end of data" in message:
            what = "a quote is opened and never closed; close or remove it"
        elif "field limit" in message:
            what = f"a field of more than {csv.field_size_limit():,} characters, as if a quote were never closed; close or remove it"
        else:
            what = 'text follows the closing quote of a field; double a quote that is part of a field ("")'
        raise InvalidDataError(f"{path}, line {reader.line_num}: cannot be read as CSV: {what}") from None
