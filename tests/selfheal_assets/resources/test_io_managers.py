"""What assets hand to each other, wherever ASSETS_URL puts it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TypeAlias

import dagster as dg
import pandas as pd
import pytest
from s3fs import S3FileSystem

from selfheal.adapters.datasets import Dataset
from selfheal.domain.records import Decision
from selfheal.domain.retraining.dataset import TrainingSet
from selfheal.kit.errors import ConfigurationError, IntegrityError, ServiceUnavailableError
from selfheal_assets.resources.io_managers import FrameIOManager, RecordIOManager, assets_root
from selfheal_assets.resources.platform import PlatformResource
from tests.builders import decision
from tests.domain.retraining.rows import labelled, split
from tests.object_store import Bucket

KEY = dg.AssetKey(["folder", "thing"])


Factory: TypeAlias = "RecordIOManager | FrameIOManager"


def made(factory: Factory) -> dg.UPathIOManager:
    return factory.create_io_manager(dg.build_init_resource_context())


def out_of(factory: Factory, kind: type) -> object:
    context = dg.build_input_context(asset_key=KEY, dagster_type=dg.PythonObjectDagsterType(kind))
    return made(factory).load_input(context)


def into(factory: Factory, thing: object) -> None:
    made(factory).handle_output(dg.build_output_context(asset_key=KEY, run_id="run"), thing)


def resource(data_dir: Path, url: str | None = None) -> PlatformResource:
    return PlatformResource(overrides={"data_dir": str(data_dir)} | ({"assets_url": url} if url else {}))


@pytest.fixture(params=["folder", "S3"])
def platform_resource(request: pytest.FixtureRequest, tmp_path: Path) -> PlatformResource:
    """The default folder, and a real object store: no folders to make, no renames."""
    url = None if request.param == "folder" else f"{request.getfixturevalue('bucket').url}/assets"
    return resource(tmp_path, url)


def test_training_sets_data_sets_and_records_come_back_as_they_were(platform_resource: PlatformResource) -> None:
    frames = FrameIOManager(platform=platform_resource)
    for seed in (1, 2):  # the second replaces the first
        rows = split(labelled(300, seed))
        into(frames, rows)
        read = out_of(frames, TrainingSet)
        assert isinstance(read, TrainingSet)
        assert read.info == rows.info
        pd.testing.assert_frame_equal(read.frame, rows.frame)
    dataset = Dataset(labelled(50).drop(columns="created_at"), "synthetic", "seed 1", "digest")
    into(frames, dataset)
    again = out_of(frames, Dataset)
    assert isinstance(again, Dataset)
    assert again.description == dataset.description
    pd.testing.assert_frame_equal(again.frame, dataset.frame)
    records = RecordIOManager(platform=platform_resource)
    into(records, decision())
    assert out_of(records, Decision) == decision()


def test_each_partition_has_a_file_and_what_was_stored_before_there_were_partitions_stays(tmp_path: Path) -> None:
    manager = RecordIOManager(platform=resource(tmp_path))
    into(manager, decision())
    versions = dg.StaticPartitionsDefinition(["1", "2"])
    for key in ("1", "2"):
        context = dg.build_output_context(asset_key=KEY, run_id="run", partition_key=key, asset_partitions_def=versions)
        made(manager).handle_output(context, decision())
    files = sorted(path.relative_to(tmp_path / "assets").as_posix() for path in tmp_path.rglob("*.json"))
    assert files == ["folder/thing.json", "folder/thing/1.json", "folder/thing/2.json"]
    assert out_of(manager, Decision) == decision()


def test_a_folder_holds_the_newest_only_and_nothing_half_written(tmp_path: Path) -> None:
    manager = RecordIOManager(platform=resource(tmp_path))
    for _ in range(2):
        into(manager, decision())
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()] == [
        "assets/folder/thing.json"
    ]


def test_a_bucket_holds_them_and_the_data_folder_does_not(tmp_path: Path, bucket: Bucket) -> None:
    into(RecordIOManager(platform=resource(tmp_path, f"{bucket.url}/assets")), decision())
    assert bucket.listed() == ["assets/folder/thing.json"]
    assert list(tmp_path.iterdir()) == []


def test_what_another_process_wrote_to_a_bucket_is_read_at_once(tmp_path: Path, bucket: Bucket) -> None:
    manager = RecordIOManager(platform=resource(tmp_path, bucket.url))
    into(manager, decision())
    assert out_of(manager, Decision) == decision()
    written = bucket.read("folder/thing.json")
    bucket.write("folder/thing.json", written.replace(b"not better", b"written elsewhere"))
    assert out_of(manager, Decision) == decision(reason="written elsewhere")


def test_a_mistyped_bucket_is_named_and_not_made(tmp_path: Path, bucket: Bucket) -> None:
    manager = RecordIOManager(platform=resource(tmp_path, "s3://no-such-bucket/assets"))
    with pytest.raises(
        ServiceUnavailableError,
        match=r"give s3://no-such-bucket/assets/folder/thing.json: .*bucket.*; check ASSETS_URL",
    ):
        into(manager, decision())
    assert "no-such-bucket" not in [entry["Name"] for entry in bucket.client.list_buckets()["Buckets"]]


def test_a_store_that_refuses_us_is_not_an_asset_that_was_never_made(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    into(RecordIOManager(platform=resource(tmp_path, bucket.url)), decision())
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    S3FileSystem.clear_instance_cache()  # as in a process that starts now
    with pytest.raises(ServiceUnavailableError, match=r"thing\.json: .*credentials.*; check ASSETS_URL"):
        out_of(RecordIOManager(platform=resource(tmp_path, bucket.url)), Decision)
    S3FileSystem.clear_instance_cache()


def test_what_was_never_materialised_is_named(platform_resource: PlatformResource) -> None:
    with pytest.raises(dg.Failure, match="folder/thing has not been materialised yet"):
        out_of(RecordIOManager(platform=platform_resource), Decision)


def test_a_training_set_that_was_changed_on_its_way_is_refused(tmp_path: Path) -> None:
    manager = FrameIOManager(platform=resource(tmp_path))
    rows = split(labelled(300))
    into(manager, TrainingSet(rows.frame.assign(load_ratio=0.5), rows.info))
    with pytest.raises(IntegrityError, match=r"thing\.parquet has changed"):
        out_of(manager, TrainingSet)


@pytest.mark.parametrize(("url", "told"), [("gs://bucket/assets", "gcsfs"), ("gopher://hole", "gopher")])
def test_an_address_that_nothing_installed_can_use_is_refused_by_name(
    url: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ConfigurationError, match=f"ASSETS_URL={url} cannot be used: .*{told}"):
        assets_root(url, "data")
