"""What assets hand to each other, kept below DATA_DIR/assets: records as JSON, frames as Parquet. The newest only."""

import json
from typing import Any

import dagster as dg
from upath import UPath

from selfheal_assets.resources import PlatformResource

INFO_KEY = b"selfheal.training_set"


class _DataDirIOManager(dg.ConfigurableIOManager):
    """Files named by asset key below DATA_DIR/assets, replaced in one step so that a crash leaves the old one."""

    platform: dg.ResourceDependency[PlatformResource]
    suffix: str = ""

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        path = self._path(context)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{context.run_id[:8]}.tmp")
        temporary.write_bytes(self.dump(obj))
        temporary.rename(path)
        context.add_output_metadata({"file": dg.MetadataValue.path(str(path))})

    def load_input(self, context: dg.InputContext) -> Any:
        path = self._path(context)
        if not path.exists():
            name = context.asset_key.to_user_string()
            raise dg.Failure(f"{name} has not been materialised yet: materialise it first ({path} is missing)")
        return self.load(path.read_bytes(), context)

    def _path(self, context: dg.InputContext | dg.OutputContext) -> UPath:
        root = UPath(str(self.platform.settings().data_dir)) / "assets"
        return root.joinpath(*context.asset_key.path[:-1]) / f"{context.asset_key.path[-1]}{self.suffix}"

    def dump(self, obj: Any) -> bytes:
        raise NotImplementedError

    def load(self, data: bytes, context: dg.InputContext) -> Any:
        raise NotImplementedError


class RecordIOManager(_DataDirIOManager):
    """One record of `selfheal.records` as JSON; the input's annotation says which."""

    suffix: str = ".json"

    def dump(self, obj: Any) -> bytes:
        from selfheal.records import to_json

        return to_json(obj)

    def load(self, data: bytes, context: dg.InputContext) -> Any:
        from selfheal.records import from_dict

        return from_dict(context.dagster_type.typing_type, json.loads(data))


class FrameIOManager(_DataDirIOManager):
    """A `Dataset` or a `TrainingSet` as Parquet, what it says of itself in the schema's metadata."""

    suffix: str = ".parquet"

    def dump(self, obj: Any) -> bytes:
        import pyarrow as pa
        import pyarrow.parquet as pq

        from selfheal.datasets import Dataset
        from selfheal.records import to_dict

        info = (
            {"origin": obj.origin, "source": obj.source, "sha256": obj.sha256}
            if isinstance(obj, Dataset)
            else to_dict(obj.info)
        )
        table = pa.Table.from_pandas(obj.frame, preserve_index=False)
        described = table.replace_schema_metadata(
            {**(table.schema.metadata or {}), INFO_KEY: json.dumps(info).encode()}
        )
        sink = pa.BufferOutputStream()
        pq.write_table(described, sink)
        return bytes(sink.getvalue())

    def load(self, data: bytes, context: dg.InputContext) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        from selfheal.datasets import Dataset
        from selfheal.records import TrainingSetInfo, from_dict
        from selfheal.retraining.dataset import TrainingSet

        table: pa.Table = pq.read_table(pa.BufferReader(data))
        info = json.loads(table.schema.metadata[INFO_KEY])
        if context.dagster_type.typing_type is Dataset:
            return Dataset(table.to_pandas(), info["origin"], info["source"], info["sha256"])
        return TrainingSet(table.to_pandas(), from_dict(TrainingSetInfo, info))
