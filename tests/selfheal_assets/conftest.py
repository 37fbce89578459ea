"""Dagster's own runtime on the platform of a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import dagster as dg
import pytest

from selfheal.services.platform import Platform
from selfheal.settings import Settings
from selfheal_assets.assets.retraining import RequestTrigger, RetrainingRequest
from selfheal_assets.definitions import build_definitions
from selfheal_assets.resources.platform import PlatformResource, close_all
from selfheal_assets.resources.versions import MODEL_VERSIONS, partition_of


def overrides_of(settings: Settings) -> dict[str, Any]:
    """The settings that a test chose, as plain values."""
    values = {name: getattr(settings, name) for name in settings.model_fields_set}
    return {
        name: value.get_secret_value()
        if hasattr(value, "get_secret_value")
        else value
        if isinstance(value, int | float)
        else str(value)
        for name, value in values.items()
        if value is not None
    }


@dataclass(frozen=True)
class Dagster:
    """The code location of a test's settings with an instance of its own."""

    definitions: dg.Definitions
    instance: dg.DagsterInstance
    resource: PlatformResource

    @property
    def platform(self) -> Platform:
        return self.resource.open()

    def run(self, job: str, config: dg.RunConfig | None = None, **options: Any) -> dg.ExecuteInProcessResult:
        return with_plain_metadata(
            self.definitions.resolve_job_def(job).execute_in_process(
                instance=self.instance, run_config=config, raise_on_error=False, **options
            )
        )

    def watch_probation(self, version: int) -> dg.ExecuteInProcessResult:
        """A run of `probation_job` for a version, as the sensor requests it."""
        self.instance.add_dynamic_partitions(str(MODEL_VERSIONS.name), [partition_of(version)])
        return self.run("probation_job", partition_key=partition_of(version))

    def materialize(self, *assets: str, partition: str | None = None) -> dg.ExecuteInProcessResult:
        """As a person does in the UI: these assets, nothing else."""
        everything = self.definitions.resolve_implicit_global_asset_job_def()
        return with_plain_metadata(
            everything.execute_in_process(
                instance=self.instance,
                asset_selection=[dg.AssetKey(name) for name in assets],
                partition_key=partition,
                raise_on_error=False,
            )
        )


def with_plain_metadata(result: dg.ExecuteInProcessResult) -> dg.ExecuteInProcessResult:
    """The result, once all numbers that the run has shown are Python's own: every run of every test is walked."""
    for event in result.all_events:
        shown = getattr(
            getattr(event.event_specific_data, "materialization", event.event_specific_data), "metadata", None
        )
        for name, value in (shown or {}).items():
            for single in single_values(value):
                is_number = isinstance(single, int | float)
                assert not is_number or type(single) in {bool, int, float}, f"{name} of {event.step_key}: {single!r}"
    return result


def single_values(value: dg.MetadataValue) -> Iterator[Any]:
    if isinstance(value, dg.TableMetadataValue):
        for record in value.records:
            yield from record.data.values()
    elif not isinstance(value.value, dict | list):
        yield value.value


def retraining_config(trigger: RequestTrigger, **request: str) -> dg.RunConfig:
    return RetrainingRequest(trigger=trigger, **request).run_config()


def metadata_of(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    """The metadata of what the run materialised for this asset."""
    (event,) = [e for e in result.get_asset_materialization_events() if e.asset_key == dg.AssetKey(asset)]
    return {name: value.value for name, value in event.materialization.metadata.items()}


def table_of(result: dg.ExecuteInProcessResult, asset: str, name: str) -> list[dict[str, Any]]:
    """The rows of a table among an asset's metadata."""
    return [record.data for record in metadata_of(result, asset)[name].records]


@pytest.fixture
def make_dagster() -> Iterator[Callable[[Settings], Dagster]]:
    with dg.DagsterInstance.ephemeral() as instance:

        def make(settings: Settings) -> Dagster:
            overrides = overrides_of(settings)
            return Dagster(build_definitions(**overrides), instance, PlatformResource(overrides=overrides))

        yield make
    close_all()


@pytest.fixture
def dagster(make_dagster: Callable[[Settings], Dagster], make_settings: Callable[..., Settings]) -> Dagster:
    """A bootstrapped platform under Dagster, version 1 in production and no traffic yet."""
    return make_dagster(make_settings())
