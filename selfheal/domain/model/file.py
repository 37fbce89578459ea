"""Loading of model files that may be hostile: their content is data, and none of it is ever executed.

Anyone who can write to both the registry and `model_metadata` can give a hostile file a matching digest; then only this
module protects the process. So there is one format (skops, a zip), one list of types, and a bound on the unpacked size.
Nothing here calls pickle, joblib or MLflow's own loaders.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from selfheal.kit.errors import ModelRefusedError

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

TRUSTED_TYPES = (
    "numpy.dtype",
    "selfheal.domain.model.recalibrated.RecalibratedClassifier",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.utils._bunch.Bunch",
)
"""Types beyond skops' own list that a model file may hold: plain Python classes that store data. A file with any other type
is refused unread. Trees are refused, because compiled code trusts the positions stored in them and a crafted tree crashes
the process. A contract may trust them if only its owners can write to the registry (`ModelContract.trusted_types`).
"""

SCHEMA = "schema.json"
MAX_SCHEMA_BYTES = 64_000_000
MAX_MEMBERS = 100_000
ZIP_START = b"PK\x03\x04"
"""First bytes of a member that is itself a zip (scipy's sparse matrices), which numpy unpacks too."""


def load_trusted(data: bytes, name: str, max_bytes: int, also_trusted: Collection[str] = ()) -> Pipeline:
    """Load the classifier of a skops file that holds no type beyond skops' own list, ours, and the contract's.

    Args:
        name: of the file, for messages.
        max_bytes: largest total size, unpacked, of what is read from it.
        also_trusted: types that the use case's author declared as trusted (`ModelContract.trusted_types`).

    Raises:
        ModelRefusedError: naming the types that are not trusted, or why it does not load.
    """
    import skops.io

    with _refusing(name):
        _check_archive(data, name, max_bytes)
        trusted = [*TRUSTED_TYPES, *also_trusted]
        untrusted = sorted(set(skops.io.get_untrusted_types(data=data)) - set(trusted))
        if untrusted:
            raise ModelRefusedError(f"{name} holds types that are not trusted: {', '.join(untrusted)}")
        pipeline: Pipeline = skops.io.loads(data, trusted=trusted)
        if not callable(getattr(pipeline, "predict_proba", None)):
            raise ModelRefusedError(f"{name} holds a {type(pipeline).__name__}, which is no classifier")
    return pipeline


def check_size(n_bytes: int, name: str, max_bytes: int) -> None:
    """Check a file's size before any of it is read.

    Raises:
        ModelRefusedError: if it has more bytes than MAX_MODEL_MB allows.
    """
    if n_bytes > max_bytes:
        raise ModelRefusedError(f"{name} has {n_bytes:,} bytes; MAX_MODEL_MB allows {max_bytes:,}")


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    """Turn whatever the loader raises on a hostile or broken model file into a refusal."""
    try:
        yield
    except ModelRefusedError:
        raise
    except Exception as error:
        raise ModelRefusedError(f"{name} does not load: {type(error).__name__}: {error}") from error


def _check_archive(data: bytes, name: str, max_bytes: int) -> None:
    """Refuse an archive that unpacks to more than the limit. zipfile reads no more of a member than its entry declares."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        declared = {entry.filename: entry.file_size for entry in entries}
        strange = [member for member in declared if not _is_plain_name(member)]
        if strange:
            raise ModelRefusedError(f"{name} has a member named {strange[0][:80]!r}, which is no plain file name")
        if len(declared) != len(entries) or len(entries) > MAX_MEMBERS:
            raise ModelRefusedError(f"{name} has members of the same name, or more than {MAX_MEMBERS:,}")
        _check_unpacked(sum(declared.values()), name, max_bytes)
        _check_unpacked(declared.get(SCHEMA, 0), f"{SCHEMA} of {name}", MAX_SCHEMA_BYTES)
        mentions = Counter(_mentioned(json.loads(archive.read(SCHEMA))))
        n_read = sum(n * (declared[member] + _inner_bytes(archive, member)) for member, n in mentions.items())
        _check_unpacked(n_read, name, max_bytes)


def _check_unpacked(n_bytes: int, name: str, max_bytes: int) -> None:
    if n_bytes > max_bytes:
        raise ModelRefusedError(f"{name} unpacks to {n_bytes:,} bytes; {max_bytes:,} are allowed (MAX_MODEL_MB)")


def _is_plain_name(member: str) -> bool:
    return PurePosixPath(member).name == member and "\\" not in member and member not in {"", ".", ".."}


def _mentioned(schema: Any) -> Iterator[str]:
    """Yield the members that the schema reads, each as often as it is read."""
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if isinstance(node.get("file"), str):
                yield node["file"]
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


def _inner_bytes(archive: zipfile.ZipFile, member: str) -> int:
    """Return the unpacked size of a member that is itself a zip, else 0. No reader unpacks deeper levels."""
    with archive.open(member) as file:
        if file.read(len(ZIP_START)) != ZIP_START:
            return 0
    with zipfile.ZipFile(io.BytesIO(archive.read(member))) as inner:
        return sum(entry.file_size for entry in inner.infolist())
