"""MLflow's scoring protocol: from the body of `POST /invocations` to rows. Pure.

Accepted are the forms of `mlflow.pyfunc.scoring_server`: JSON with `dataframe_split`, `dataframe_records`, `inputs` or
`instances`, and CSV. Parquet is refused: a file of a few kilobytes may unpack to any size. A frame may have the columns of
`/predict`'s other fields too (`prediction_id`, the entity's key); what is the same for all rows may be in `params`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from selfheal.domain.labelled_file.data_format import DataFormat
from serving.protocols.json_body import read_json
from serving.protocols.rows import (
    Column,
    JsonRow,
    check_n_rows,
    columns_of_matrix,
    flags_of,
    rows_of_columns,
    with_flags,
    with_shared_fields,
    wrong,
)
from serving.schemas.mlflow_scoring import SplitFrame
from serving.schemas.problems import ProblemError, invalid_request
from serving.schemas.reading import problem_of
from serving.schemas.requests import MAX_BATCH_ROWS

if TYPE_CHECKING:
    from selfheal.domain.contract import ModelContract

JSON, CSV, PARQUET = "application/json", "text/csv", "application/vnd.apache.parquet"
FORMS = ("dataframe_split", "dataframe_records", "inputs", "instances")

MAX_CELL_CHARACTERS = 10_000
"""Of one field of a CSV file; far more than an input has."""

_split_frame = TypeAdapter(SplitFrame)
_files = DataFormat()
read_number = _files.field_reader(is_label=False)
read_flag = _files.field_reader(is_label=False, is_flag=True)
is_missing = _files.missing_reader()


@dataclass(frozen=True, slots=True)
class ScoringRequest:
    """A request that has been read."""

    rows: list[JsonRow]
    is_explained: bool = False


def read_invocation(body: bytes, content_type: str, contract: ModelContract) -> ScoringRequest:
    """Return what a request's body asks for.

    Raises:
        ProblemError: 413, 415 or 422, naming what is wrong.
    """
    return _reader_of(content_type)(body, contract)


def _reader_of(content_type: str) -> Callable[[bytes, ModelContract], ScoringRequest]:
    name, *options = (part.strip().lower() for part in content_type.split(";"))
    stray = next((option for option in options if option.replace('"', "") not in {"charset=utf-8", ""}), None)
    if stray is not None:
        detail = f"Content-Type has {stray[:100]!r}; the only parameter is charset=utf-8: send the body in UTF-8"
        raise ProblemError(415, "unsupported_media_type", detail)
    readers = {JSON: _read_json_form, CSV: _read_csv}
    if name not in readers:
        why = "a Parquet file may unpack to any size" if name == PARQUET else f"Content-Type is {name[:100]!r}"
        detail = f"{why}; send the rows as {JSON} or {CSV}"
        raise ProblemError(415, "unsupported_media_type", detail)
    return readers[name]


# JSON


def _read_json_form(body: bytes, contract: ModelContract) -> ScoringRequest:
    request = read_json(body)
    if not isinstance(request, dict):
        raise wrong("body", f"Input should be an object with one of {', '.join(FORMS)}")
    forms = [name for name in FORMS if name in request]
    unknown = next((name for name in request if name not in {*FORMS, "params"}), None)
    if unknown is not None or len(forms) != 1:
        has = ", ".join(list(request)[:10]) or "no field"
        raise wrong("body", f"has {has[:200]}; send exactly one of {', '.join(FORMS)}, and params if need be")
    params = {} if request.get("params") is None else request["params"]
    if not isinstance(params, dict):
        raise wrong("params", "Input should be an object")
    is_explained = params.pop("explain", False)
    if not isinstance(is_explained, bool):
        raise wrong("params.explain", "Input should be true or false")
    (form,) = forms
    read = {"dataframe_split": _split, "dataframe_records": _records}.get(form, _tensors)
    return ScoringRequest(
        with_shared_fields(read(request[form], form, contract), params, "params", contract), is_explained
    )


def _split(frame: Any, form: str, contract: ModelContract) -> list[JsonRow]:
    try:
        checked = _split_frame.validate_python(frame)
    except ValidationError as error:
        problems = problem_of(error).extra["errors"]
        raise invalid_request([one | {"field": _within(form, one["field"])} for one in problems]) from None
    check_n_rows(len(checked.data))
    return rows_of_columns(
        columns_of_matrix(checked.data, checked.columns, form, contract), len(checked.data), contract
    )


def _within(form: str, field: str) -> str:
    return form if field == "body" else f"{form}.{field}"


def _records(records: Any, form: str, contract: ModelContract) -> list[JsonRow]:  # noqa: ARG001 (one signature for all forms)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise wrong(form, "Input should be a list of objects, one for each row")
    return records


def _tensors(inputs: Any, form: str, contract: ModelContract) -> list[JsonRow]:
    """Return the rows of columns by name, of objects, of lists, or of the values of the only input."""
    if isinstance(inputs, dict):
        columns = [Column(name, _vector(values, f"{form}.{name}"), f"{form}.{name}") for name, values in inputs.items()]
        return rows_of_columns(with_flags(columns, contract), len(columns[0].values) if columns else 0, contract)
    if not isinstance(inputs, list):
        raise wrong(form, "Input should be columns by name, or a list of rows")
    kinds = set(map(type, inputs))
    if kinds <= {dict}:
        return _records(inputs, form, contract)
    if kinds == {list}:
        check_n_rows(len(inputs))
        columns = with_flags(columns_of_matrix(inputs, None, form, contract), contract)
        return rows_of_columns(columns, len(inputs), contract)
    if not kinds & {list, dict} and len(contract.inputs) == 1:
        columns = with_flags([Column(contract.input_names[0], inputs, form)], contract)
        return rows_of_columns(columns, len(inputs), contract)
    known = f"a row is an object, or a list of {len(contract.inputs)} values: {', '.join(contract.input_names)}"
    raise wrong(form, f"Input should be columns by name, or a list of rows; {known}")


def _vector(values: Any, where: str) -> list[Any]:
    """Return the values of one column, which may be lists of one, as a column of a matrix is."""
    if not isinstance(values, list):
        raise wrong(where, "Input should be a list with a value for each row")
    if all(isinstance(value, list) and len(value) == 1 for value in values):
        return [value[0] for value in values]
    return values


# Files


def _read_csv(body: bytes, contract: ModelContract) -> ScoringRequest:
    try:
        reader = csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
        lines = [line for line in _limited(reader) if line]
    except UnicodeDecodeError:
        raise wrong("body", "Input should be CSV in UTF-8") from None
    except csv.Error as error:
        raise wrong("body", f"Input should be CSV with commas: {error}") from None
    if len(lines) < 2:
        raise wrong("body", "has no rows; send a line with the columns' names, then a line for each row")
    header, *rows = lines
    if header[0] == "":
        raise wrong("body", "the first column has no name; write the frame with to_csv(index=False)")
    columns = columns_of_matrix(rows, header, "body", contract)
    read = [Column(one.name, [_cell(one.name, text, contract) for text in one.values], one.where) for one in columns]
    return ScoringRequest(rows_of_columns(read, len(rows), contract))


def _limited(reader: Iterator[list[str]]) -> Iterator[list[str]]:
    """Yield the lines, as long as there are not too many."""
    for which, line in enumerate(reader):
        if which > MAX_BATCH_ROWS + 1:
            check_n_rows(which)
        if any(len(text) > MAX_CELL_CHARACTERS for text in line):
            raise wrong("body", f"line {which + 1} has a field of more than {MAX_CELL_CHARACTERS:,} characters")
        yield line


def _cell(name: str, text: str, contract: ModelContract) -> Any:
    """Return the value of a field, as of a labelled file; the text, if it is no value of its input's kind."""
    canonical = contract.canonical_name(name)
    if canonical is None:
        return text or None
    kind = contract.kinds[canonical]
    if kind == "category":
        return None if is_missing(text) else text
    value = (read_flag if kind == "bool" else read_number)(text)
    if value is None:
        return text
    return flags_of([value])[0] if kind == "bool" else value
