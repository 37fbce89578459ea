"""A version is a partition by its number."""

from __future__ import annotations

import dagster as dg
import pytest

from selfheal_assets.resources.versions import MODEL_VERSIONS, partition_of, version_of


def test_a_version_and_its_partition_name_each_other() -> None:
    assert version_of(partition_of(12)) == 12
    assert MODEL_VERSIONS.name == "model_version", "Dagster stores the partitions under this name"


@pytest.mark.parametrize("key", ["latest", "v2", "-1", "1.0", ""])
def test_a_key_that_is_no_number_is_refused_by_name(key: str) -> None:
    with pytest.raises(dg.Failure, match="is no model version: choose a number") as refused:
        version_of(key)
    assert not refused.value.allow_retries, "it would be refused again"
