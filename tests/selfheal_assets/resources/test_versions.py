"""A version is a partition by its number."""

from __future__ import annotations

import dagster as dg
import pytest

from selfheal_assets.definitions import defs
from selfheal_assets.resources.versions import MODEL_VERSIONS, PRODUCTION_MODEL, partition_of, version_of


def test_a_version_and_its_partition_name_each_other() -> None:
    assert version_of(partition_of(12)) == 12
    assert MODEL_VERSIONS.name == "model_version", "Dagster stores the partitions under this name"


@pytest.mark.parametrize("key", ["latest", "v2", "-1", "1.0", ""])
def test_a_key_that_is_no_number_is_refused_by_name(key: str) -> None:
    with pytest.raises(dg.Failure, match="is no model version: choose a number") as refused:
        version_of(key)
    assert not refused.value.allow_retries, "it would be refused again"


def test_nobody_is_asked_for_a_version_before_there_is_one() -> None:
    """A job with partitions cannot be started in Dagster's UI without choosing one."""
    partitions = {job: defs.resolve_job_def(job).partitions_def for job in ("bootstrap_job", "retraining_job")}
    assert set(partitions.values()) == {None}
    assert defs.resolve_job_def("probation_job").partitions_def == MODEL_VERSIONS
    assert not defs.resolve_asset_graph().get(PRODUCTION_MODEL).is_materializable, "it is reported, not made"
