"""What assets hand to each other, kept below ASSETS_URL: records as JSON, frames as Parquet. The newest only."""

import json
from typing import Any

import dagster as dg
from upath import UPath

from selfheal_assets.resources import PlatformResource

LOCAL_PROTOCOLS = {"", "file", "local"}
INFO_KEY = b"selfheal.dataset"


def assets_root(url: str | None, data_dir: object) -> UPath:
    """The folder of ASSETS_URL (any URL fsspec knows, such as `s3://bucket/assets`); without one, DATA_DIR/assets.

    Raises:
        ConfigurationError: if nothing that is installed reads such a URL.
    """
    from selfheal.kit.errors import ConfigurationError

    try:
        root = UPath(url) if url else UPath(str(data_dir)) / "assets"
        root.fs  # noqa: B018  (looking for the filesystem imports its library)
    except (ImportError, ValueError) as error:
        raise ConfigurationError(f"ASSETS_URL={url} cannot be used: {error}") from error
    return root


class _AssetsIOManager(dg.ConfigurableIOManager):
    """Files named by asset key below ASSETS_URL, replaced in one step so that a crash leaves the old one."""

    platform: dg.ResourceDependency[PlatformResource]
    suffix: str = ""

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        path = self._path(context)
        _replace(path, self.dump(obj), context.run_id)
        context.add_output_metadata({"file": dg.MetadataValue.path(str(path))})

    def load_input(self, context: dg.InputContext) -> Any:
        path = self._path(context)
        if not path.exists():
            name = context.asset_key.to_user_string()
            raise dg.Failure(f"{name} has not been materialised yet: materialise it first ({path} is missing)")
        return self.load(path.read_bytes(), context)

    def _path(self, context: dg.InputContext | dg.OutputContext) -> UPath:
        settings = self.platform.settings()
        root = assets_root(settings.assets_url, settings.data_dir)
        return root.joinpath(*context.asset_key.path[:-1]) / f"{context.asset_key.path[-1]}{self.suffix}"

    def dump(self, obj: Any) -> bytes:
        raise NotImplementedError

    def load(self, data: bytes, context: dg.InputContext) -> Any:
        raise NotImplementedError


class RecordIOManager(_AssetsIOManager):
    """One record of `selfheal.domain.records.monitoring` as JSON; the input's annotation says which."""

    suffix: str = ".json"

    def dump(self, obj: Any) -> bytes:
        from selfheal.kit.serialization import to_json

        return to_json(obj)

    def load(self, data: bytes, context: dg.InputContext) -> Any:
        from selfheal.kit.serialization import from_dict

        return from_dict(context.dagster_type.typing_type, json.loads(data))


class FrameIOManager(_AssetsIOManager):
    """A `Dataset` or a `TrainingSet` as Parquet, what it says of itself in the schema's metadata."""

    suffix: str = ".parquet"

    def dump(self, obj: Any) -> bytes:
        from selfheal.adapters.datasets import Dataset
        from selfheal.domain.retraining import snapshot

        return _dump_dataset(obj) if isinstance(obj, Dataset) else snapshot.to_parquet(obj)

    def load(self, data: bytes, context: dg.InputContext) -> Any:
        from selfheal.adapters.datasets import Dataset
        from selfheal.domain.retraining import snapshot

        if context.dagster_type.typing_type is Dataset:
            return _load_dataset(data)
        return snapshot.from_parquet(data, str(self._path(context)))


def _dump_dataset(dataset: Any) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    info = {"origin": dataset.origin, "source": dataset.source, "sha256": dataset.sha256}
    table = pa.Table.from_pandas(dataset.frame, preserve_index=False)
    described = table.replace_schema_metadata({**(table.schema.metadata or {}), INFO_KEY: json.dumps(info).encode()})
    sink = pa.BufferOutputStream()
    pq.write_table(described, sink)
    return bytes(sink.getvalue())


def _load_dataset(data: bytes) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from selfheal.adapters.datasets import Dataset

    table: pa.Table = pq.read_table(pa.BufferReader(data))
    info = json.loads(table.schema.metadata[INFO_KEY])
    return Dataset(table.to_pandas(), info["origin"], info["source"], info["sha256"])


def _replace(path: UPath, data: bytes, run_id: str) -> None:
    """An object store shows a file when it is whole; a local folder needs a file beside it and a rename."""
    if path.protocol not in LOCAL_PROTOCOLS:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{run_id[:8]}.tmp")
    temporary.write_bytes(data)
    temporary.rename(path)
