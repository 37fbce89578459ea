"""Which column of a file is which input of the contract, by its header; and what a wrong header probably means."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from selfheal.domain.contract import TRUE_LABEL, ModelContract
from selfheal.domain.names import fold_name

INDEX_NAMES = frozenset({"", "id", "index"})
"""Headers (in lower case) of a row index; so is `Unnamed: ...`, pandas' name for a blank header, which Kaggle uses."""

SIMILARITY = 0.85
"""Share of equal characters (difflib's ratio) from which two names are taken for one that is misspelt."""


@dataclass(frozen=True, slots=True)
class ColumnMatch:
    """The file's columns by position, and the names of the contract that have none.

    `inputs` maps a position to the canonical name (`true_label` for the label). `doubles` maps the position of a column to
    the canonical name that an earlier column stands for already. `lookalikes` maps an unknown column to the missing name
    that it resembles. `entity` is the position of the key that says whom a row is about, if the contract has one.
    """

    headers: tuple[str, ...]
    inputs: Mapping[int, str] = field(default_factory=dict)
    index: tuple[int, ...] = ()
    ignored: tuple[int, ...] = ()
    unknown: tuple[int, ...] = ()
    doubles: Mapping[int, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    lookalikes: Mapping[int, str] = field(default_factory=dict)
    entity: int | None = None


def match_columns(headers: Sequence[str], contract: ModelContract, ignored_columns: Iterable[str]) -> ColumnMatch:
    """Return which column is which. A column that is to be ignored is nothing else."""
    to_ignore = {fold_name(name) for name in ignored_columns}
    inputs: dict[int, str] = {}
    doubles: dict[int, str] = {}
    index: list[int] = []
    ignored: list[int] = []
    unknown: list[int] = []
    entity: int | None = None
    for position, header in enumerate(headers):
        name = canonical_name(header, contract)
        if fold_name(header) in to_ignore:
            ignored.append(position)
        elif contract.has_entity_key and entity is None and fold_name(header) == fold_name(contract.entity):
            entity = position
        elif name is None:
            (index if is_index(header) else unknown).append(position)
        elif name in inputs.values():
            doubles[position] = name
        else:
            inputs[position] = name
    missing = tuple(name for name in (*contract.input_names, TRUE_LABEL) if name not in inputs.values())
    return ColumnMatch(
        headers=tuple(headers),
        inputs=inputs,
        index=tuple(index),
        ignored=tuple(ignored),
        unknown=tuple(unknown),
        doubles=doubles,
        missing=missing,
        lookalikes=_lookalikes({position: headers[position] for position in unknown}, missing, contract),
        entity=entity,
    )


def canonical_name(header: str, contract: ModelContract) -> str | None:
    """Return the input or `true_label` that a header stands for; None if it stands for nothing."""
    return TRUE_LABEL if contract.is_label_name(header) else contract.canonical_name(header)


def accepted_names(name: str, contract: ModelContract) -> tuple[str, ...]:
    """Return the headers that an input or `true_label` may have."""
    if name == TRUE_LABEL:
        return (contract.label.name, *contract.label.aliases)
    feature = next(one for one in contract.inputs if one.name == name)
    return (feature.name, *feature.aliases)


def is_index(header: str) -> bool:
    """Return whether a header is that of a row index, which is left out."""
    return header.strip().lower() in INDEX_NAMES or header.startswith("Unnamed:")


def likely_delimiter(header_line: str, contract: ModelContract, given: str, candidates: Sequence[str]) -> str:
    """Return the delimiter with which most names of the header are known; `given` unless another knows more of them."""

    def n_known(delimiter: str) -> int:
        names = {canonical_name(name.strip().strip('"'), contract) for name in header_line.split(delimiter)}
        return len(names - {None})

    return max((given, *candidates), key=n_known)  # max returns the first of equal ones


def _lookalikes(unknown: Mapping[int, str], missing: Sequence[str], contract: ModelContract) -> dict[int, str]:
    names = {_letters(accepted): name for name in missing for accepted in accepted_names(name, contract)}
    found: dict[int, str] = {}
    for position, header in unknown.items():
        close = get_close_matches(_letters(header), names, n=1, cutoff=SIMILARITY)
        if close and names[close[0]] not in found.values():
            found[position] = names[close[0]]
    return found


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
