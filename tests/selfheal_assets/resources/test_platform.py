"""A run owns its platform; sensors share one."""

from __future__ import annotations

import dagster as dg
import pytest

from selfheal.services.platform import Platform
from selfheal_assets.resources.platform import PlatformResource
from tests.selfheal_assets.conftest import Dagster

pytestmark = pytest.mark.integration


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was opened and closed, in order."""
    from selfheal.services import platform

    events: list[str] = []
    real_open, real_close = platform.open_platform, Platform.close

    def open_platform(*args: object, **options: object) -> Platform:
        events.append("open")
        return real_open(*args, **options)  # type: ignore[arg-type]

    def close(self: Platform) -> None:
        events.append("close")
        real_close(self)

    monkeypatch.setattr(platform, "open_platform", open_platform)
    monkeypatch.setattr(Platform, "close", close)
    return events


def test_a_run_opens_one_platform_for_all_its_steps_and_closes_it(dagster: Dagster, opened: list[str]) -> None:
    assert dagster.run("monitoring_job").success
    assert opened == ["open", "close"]


def test_a_run_that_fails_closes_it_too(dagster: Dagster, opened: list[str]) -> None:
    dagster.instance.add_dynamic_partitions("model_version", ["9"])
    assert not dagster.run("probation_job", partition_key="9").success
    assert opened == ["open", "close"]


def test_sensors_share_one_that_stays_open(dagster: Dagster, opened: list[str]) -> None:
    for _ in range(2):
        with dg.build_resources({"platform": dagster.resource}) as resources:
            assert isinstance(resources.platform, PlatformResource)
            resources.platform.open()
    assert opened == ["open"]
