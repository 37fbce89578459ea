"""Snapshot of a training set: one Parquet file, checked by the digest of its rows.

Belongs here: the file format. `selfheal.domain.retraining.dataset` selects the rows and computes their digest; the registry and
the assets decide where the file is stored.
"""

from __future__ import annotations

import json

from selfheal.domain.records import TrainingSetInfo
from selfheal.domain.retraining.dataset import TrainingSet, rows_digest
from selfheal.kit.errors import IntegrityError
from selfheal.kit.serialization import from_dict, to_dict

FILE_NAME = "training_set.parquet"
INFO_KEY = b"selfheal.training_set"


def to_parquet(training_set: TrainingSet) -> bytes:
    """Write the rows as Parquet, with `info` in the schema's metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(training_set.frame, preserve_index=False)
    info = json.dumps(to_dict(training_set.info)).encode()
    described = table.replace_schema_metadata({**(table.schema.metadata or {}), INFO_KEY: info})
    sink = pa.BufferOutputStream()
    pq.write_table(described, sink)
    return bytes(sink.getvalue())


def from_parquet(data: bytes, name: str, expected_sha256: str | None = None) -> TrainingSet:
    """Read the training set that `to_parquet` was given.

    Args:
        name: of the file, for messages.
        expected_sha256: the digest recorded elsewhere; the one in the file can be changed together with its rows.

    Raises:
        IntegrityError: if the file cannot be read, or its rows do not have the expected digest.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(data))
        info = from_dict(TrainingSetInfo, json.loads(table.schema.metadata[INFO_KEY]))
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"{name} is not a training set: {error}; restore it from a backup") from error
    frame = table.to_pandas()
    expected, found = expected_sha256 or info.sha256, rows_digest(frame)
    if found != expected:
        raise IntegrityError(
            f"{name} has changed: its rows should have sha256 {expected}, they have {found}; restore it from a backup"
        )
    return TrainingSet(frame, info)
