"""The journal's predictions with what came of them and when that was known: the rows of a replay while Postgres is away.

The same rows and columns as `selfheal.adapters.postgres.logged_rows` gives once the journal has been copied; several labels of one
prediction are resolved by the same rule (`StoredLabel.overrules`).
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from selfheal.adapters.journal import LABEL_JOURNAL, JournalKind, prediction_journal, read_chunk
from selfheal.adapters.postgres.frames import as_declared
from selfheal.adapters.postgres.logged_rows import LABEL_KNOWN_AT
from selfheal.domain.clusters import ENTITY
from selfheal.domain.contract import TRUE_LABEL, ModelContract
from selfheal.domain.levels import unescaped
from selfheal.kit.errors import InvalidDataError

if TYPE_CHECKING:
    import pandas as pd

FLAGS = {"true": 1.0, "false": 0.0}
"""A bool in the journal, as frames have it."""

ID, CREATED, RECEIVED, ORDERED, IS_CORRECTION = (
    "prediction_id",
    "created_at",
    "received_at",
    "ordered_at",
    "is_correction",
)


def journal_rows(
    contract: ModelContract, data_dir: Path, *, since: datetime | None, until: datetime, max_rows: int
) -> pd.DataFrame:
    """Return the newest predictions in the journal made in (since, until], labelled or not, in chronological order.

    Columns: `prediction_id`, `created_at`, features, `true_label` as it counts now (blank: unknown), `LABEL_KNOWN_AT`.
    Files of a contract with other features are left out.

    Raises:
        InvalidDataError: if there is no journal of this contract, or a file is damaged.
    """
    import pandas as pd

    rows = _predictions(contract, data_dir, since, until, max_rows)
    labels = counted_labels(_labels(data_dir, set(rows[ID])))
    joined = rows.merge(labels, on=ID, how="left")
    joined[LABEL_KNOWN_AT] = pd.to_datetime(joined[LABEL_KNOWN_AT], utc=True)
    return joined


def counted_labels(labels: pd.DataFrame) -> pd.DataFrame:
    """Return the label of each prediction that counts, and when it was known: the first label, or the last correction.

    Args:
        labels: `prediction_id`, `true_label`, `received_at`, `is_correction`, `ordered_at` (blank: by `received_at`).
    """
    ranked = labels.assign(order=labels[ORDERED].fillna(labels[RECEIVED]))
    corrections, plain = (
        ranked[ranked[IS_CORRECTION] == is_correction]
        .sort_values(["order", RECEIVED], ascending=not is_correction, kind="stable")  # of equal ones the first read
        .drop_duplicates(ID)
        for is_correction in (True, False)
    )
    counted = corrections.set_index(ID).combine_first(plain.set_index(ID))
    first = (
        labels.sort_values([RECEIVED, TRUE_LABEL], kind="stable")
        .drop_duplicates(ID)
        .set_index(ID)
        .reindex(counted.index)
    )
    is_first = first[TRUE_LABEL] == counted[TRUE_LABEL]
    counted[LABEL_KNOWN_AT] = first[RECEIVED].where(is_first, counted[RECEIVED])
    return counted[[TRUE_LABEL, LABEL_KNOWN_AT]].reset_index()


def _predictions(
    contract: ModelContract, data_dir: Path, since: datetime | None, until: datetime, max_rows: int
) -> pd.DataFrame:
    import pandas as pd

    entity = (ENTITY,) if contract.has_entity_key else ()
    wanted = (ID, CREATED, *contract.feature_names, *entity)
    found: list[pd.DataFrame] = []
    n_rows = 0
    texts = [name for name, kind in contract.kinds.items() if kind in {"bool", "category"}]
    for frame in _frames(prediction_journal(contract), data_dir, wanted, may_lack=entity, texts=(*texts, ENTITY)):
        frame[CREATED] = pd.to_datetime(frame[CREATED], format="ISO8601", utc=True)
        is_wanted = frame[CREATED] <= until if since is None else (frame[CREATED] > since) & (frame[CREATED] <= until)
        found.append(as_declared(_decoded(frame[is_wanted], contract), contract))
        n_rows += len(found[-1])
        if n_rows > 2 * max_rows:  # never more in memory than twice what is wanted, and a chunk
            found = [_newest(found, max_rows)]
            n_rows = len(found[0])
    if not found:
        raise InvalidDataError(
            f"{prediction_journal(contract).folder(data_dir)}: no predictions of contract {contract.name!r}; see that DATA_DIR is the "
            "platform's"
        )
    return _newest(found, max_rows)


def _decoded(frame: pd.DataFrame, contract: ModelContract) -> pd.DataFrame:
    """Return rows of the journal with flags as numbers and levels as they were sent."""
    found = {name: frame[name].map(FLAGS) for name, kind in contract.kinds.items() if kind == "bool"}
    levels = {name: frame[name].map(unescaped, "ignore") for name, kind in contract.kinds.items() if kind == "category"}
    return frame.assign(**found, **levels)


def _newest(frames: Sequence[pd.DataFrame], max_rows: int) -> pd.DataFrame:
    import pandas as pd

    rows = pd.concat(frames).drop_duplicates(ID).sort_values([CREATED, ID], kind="stable")
    return rows.iloc[-max_rows:].reset_index(drop=True)


def _labels(data_dir: Path, prediction_ids: set[str]) -> pd.DataFrame:
    import pandas as pd

    columns = (ID, TRUE_LABEL, RECEIVED, IS_CORRECTION, ORDERED)
    found = [
        frame[frame[ID].isin(prediction_ids)]
        for frame in _frames(LABEL_JOURNAL, data_dir, columns, may_lack=(ORDERED,))
    ]
    labels = pd.concat(found) if found else pd.DataFrame(columns=list(columns))
    for name in (RECEIVED, ORDERED):
        labels[name] = pd.to_datetime(labels[name], format="ISO8601", utc=True)
    return labels.assign(**{IS_CORRECTION: labels[IS_CORRECTION].astype(str).str.lower() == "true"})


def _frames(
    kind: JournalKind,
    data_dir: Path,
    columns: Sequence[str],
    *,
    may_lack: Sequence[str] = (),
    texts: Sequence[str] = (),
) -> Iterator[pd.DataFrame]:
    """Yield the journal's records, chunk by chunk, with these columns; files that lack one are left out."""
    import pandas as pd

    for path in kind.files(data_dir):
        offset = 0
        while True:
            try:
                chunk = read_chunk(path, offset)
            except FileNotFoundError:  # just compressed: Postgres is not away
                break
            offset = chunk.end_offset
            if not set(columns) - set(may_lack) <= set(chunk.columns) or not (chunk.lines or chunk.corrupt):
                break
            text = io.BytesIO(b"\n".join(chunk.lines))
            if chunk.lines:
                frame = pd.read_csv(
                    text,
                    names=list(chunk.columns),
                    usecols=[name for name in columns if name in chunk.columns],
                    float_precision="round_trip",
                    na_values=[""],
                    keep_default_na=False,
                    dtype={name: "object" for name in texts if name in columns},
                )
                yield frame.reindex(columns=list(columns))
