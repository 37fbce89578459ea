"""I/O managers: values that assets pass to each other, stored below ASSETS_URL, records as JSON and frames as Parquet.

Only the newest value of an asset is stored, or of each partition. Later releases read the same paths and formats, so they
must not change.
"""

import json
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from upath import UPath

from selfheal.kit.atomic_file import write_atomic
from selfheal_assets.resources.platform import PlatformResource

if TYPE_CHECKING:
    from selfheal.adapters.datasets import Dataset

LOCAL_PROTOCOLS = {"", "file", "local"}
INFO_KEY = b"selfheal.dataset"


def assets_root(url: str | None, data_dir: object) -> UPath:
    """Return the folder of ASSETS_URL (any URL fsspec knows, such as `s3://bucket/assets`); without one, DATA_DIR/assets.

    Raises:
        ConfigurationError: if no installed package reads such a URL.
    """
    from selfheal.kit.errors import ConfigurationError

    try:
        root = UPath(url) if url else UPath(str(data_dir)) / "assets"
        root.fs  # noqa: B018  (asking for the filesystem imports its library)
    except (ImportError, ValueError) as error:
        raise ConfigurationError(f"ASSETS_URL={url} cannot be used: {error}") from error
    return root


class _BytesIOManager(dg.UPathIOManager):
    """One file per asset (and partition), replaced atomically, so that a crash leaves the old one."""

    @abstractmethod
    def dump(self, obj: Any) -> bytes:
        """Return the file's content."""

    @abstractmethod
    def load(self, data: bytes, kind: Any, name: str) -> Any:
        """Return the value given to `dump`, of the annotated type `kind`; `name` is for errors."""

    def make_directory(self, path: UPath) -> None:
        """Make the folder of a file. An object store has none, and s3fs would make the bucket of a mistyped ASSETS_URL."""
        if path.protocol in LOCAL_PROTOCOLS:
            super().make_directory(path)

    def dump_to_path(self, context: dg.OutputContext, obj: Any, path: UPath) -> None:
        """Write the file atomically.

        Raises:
            ServiceUnavailableError: if the object store refuses it or does not respond.
        """
        data = self.dump(obj)
        with _naming_the_store(path):
            _replace(path, data)

    def load_from_path(self, context: dg.InputContext, path: UPath) -> Any:
        """Return the value in the file.

        Raises:
            dagster.Failure: if the asset has no file yet.
            ServiceUnavailableError: if the object store refuses to give it or does not respond.
        """
        try:
            with _naming_the_store(path, FileNotFoundError):
                data = path.read_bytes()
        except FileNotFoundError:
            name = context.asset_key.to_user_string()
            raise dg.Failure(
                f"{name} has not been materialised yet: materialise it first ({path} is missing)"
            ) from None
        return self.load(data, context.dagster_type.typing_type, str(path))


class _RecordIOManager(_BytesIOManager):
    extension = ".json"

    def dump(self, obj: Any) -> bytes:
        from selfheal.kit.serialization import to_json

        return to_json(obj)

    def load(self, data: bytes, kind: Any, name: str) -> Any:
        from selfheal.kit.serialization import from_dict

        return from_dict(kind, json.loads(data))


class _FrameIOManager(_BytesIOManager):
    extension = ".parquet"

    def dump(self, obj: Any) -> bytes:
        from selfheal.adapters.datasets import Dataset
        from selfheal.domain.retraining import snapshot

        return _dump_dataset(obj) if isinstance(obj, Dataset) else snapshot.to_parquet(obj)

    def load(self, data: bytes, kind: Any, name: str) -> Any:
        from selfheal.adapters.datasets import Dataset
        from selfheal.domain.retraining import snapshot

        return _load_dataset(data) if kind is Dataset else snapshot.from_parquet(data, name)


class RecordIOManager(dg.ConfigurableIOManagerFactory[_RecordIOManager]):
    """One record of `selfheal.domain.records` as JSON; the input's annotation is its type."""

    platform: dg.ResourceDependency[PlatformResource]

    def create_io_manager(self, context: dg.InitResourceContext) -> _RecordIOManager:
        """Return the manager of the folder in force."""
        return _RecordIOManager(_root(self.platform))


class FrameIOManager(dg.ConfigurableIOManagerFactory[_FrameIOManager]):
    """A `Dataset` or a `TrainingSet` as Parquet, with its description in the schema's metadata."""

    platform: dg.ResourceDependency[PlatformResource]

    def create_io_manager(self, context: dg.InitResourceContext) -> _FrameIOManager:
        """Return the manager of the folder in force."""
        return _FrameIOManager(_root(self.platform))


def _root(platform: PlatformResource) -> UPath:
    settings = platform.settings()
    return assets_root(settings.assets_url, settings.data_dir)


def _dump_dataset(dataset: "Dataset") -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    info = {"origin": dataset.origin, "source": dataset.source, "sha256": dataset.sha256}
    table = pa.Table.from_pandas(dataset.frame, preserve_index=False)
    described = table.replace_schema_metadata({**(table.schema.metadata or {}), INFO_KEY: json.dumps(info).encode()})
    sink = pa.BufferOutputStream()
    pq.write_table(described, sink)
    return bytes(sink.getvalue())


def _load_dataset(data: bytes) -> "Dataset":
    import pyarrow as pa
    import pyarrow.parquet as pq

    from selfheal.adapters.datasets import Dataset

    table: pa.Table = pq.read_table(pa.BufferReader(data))
    info = json.loads(table.schema.metadata[INFO_KEY])
    return Dataset(table.to_pandas(), info["origin"], info["source"], info["sha256"])


def _replace(path: UPath, data: bytes) -> None:
    """Write a file atomically: an object store does so by itself; a local folder needs a rename."""
    if path.protocol in LOCAL_PROTOCOLS:
        write_atomic(Path(path.path), data)
    else:
        path.write_bytes(data)


@contextmanager
def _naming_the_store(path: UPath, *but_not: type[Exception]) -> Iterator[None]:
    """Turn what an object store's client raises, which names neither setting nor file, into one sentence."""
    from selfheal.kit.errors import ServiceUnavailableError

    try:
        yield
    except Exception as error:  # each client has exceptions of its own
        if path.protocol in LOCAL_PROTOCOLS or isinstance(error, but_not):
            raise
        raise ServiceUnavailableError(
            f"the object store does not take or give {path}: {error}; check ASSETS_URL, the bucket and its credentials"
        ) from error
