"""Which requests Dagster could create, examined one by one."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from selfheal_assets.sensors.launchable import MAX_CAUSE_CHARACTERS, Candidate, divide
from selfheal_assets.sensors.run_alerts import alert_kind


class Limit(dg.Config):
    rows: int


@dg.asset(name="daily", partitions_def=dg.DynamicPartitionsDefinition(name="day"))
def daily() -> None:
    """A page per day."""


def limited(config: Limit) -> None:
    """Nothing but its configuration counts."""


limited.__annotations__["config"] = Limit  # annotations of this module are text, Dagster asks for the class
REPOSITORY = dg.Definitions(
    assets=[daily, dg.asset(name="limited")(limited)],
    jobs=[dg.define_asset_job("pages", ["daily"]), dg.define_asset_job("rows", ["limited"])],
).get_repository_def()
ROWS = {"ops": {"limited": {"config": {"rows": 5}}}}

CASES: list[tuple[str, str, dict[str, Any], str | None]] = [
    ("fits", "rows", {"run_config": ROWS}, None),
    ("an unknown field", "rows", {"run_config": {"ops": {"limited": {"config": {"rows": 5, "of": "any"}}}}}, '"of"'),
    ("a missing field", "rows", {"run_config": {}}, 'Missing required config entry "ops"'),
    ("another type", "rows", {"run_config": {"ops": {"limited": {"config": {"rows": "five"}}}}}, "rows"),
    ("an unknown op", "rows", {"run_config": ROWS | {"resources": {"gone": {}}}}, '"gone"'),
    ("an unknown job", "gone", {}, "there is no job gone"),
    ("its partition", "pages", {"partition_key": "monday"}, None),
    ("an unknown partition", "pages", {"partition_key": "sunday"}, "sunday"),
    ("its asset", "pages", {"partition_key": "monday", "asset_selection": [dg.AssetKey("daily")]}, None),
    ("an unknown asset", "pages", {"partition_key": "monday", "asset_selection": [dg.AssetKey("gone")]}, "gone"),
]


@pytest.mark.parametrize(("name", "job", "request_fields", "cause"), CASES, ids=[case[0] for case in CASES])
def test_each_request_is_examined_on_its_own(
    name: str, job: str, request_fields: dict[str, Any], cause: str | None
) -> None:
    asked = Candidate(job, name, dg.RunRequest(**request_fields))
    good = Candidate("rows", "good", dg.RunRequest(run_config=ROWS))
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("day", ["monday"])
        with dg.build_sensor_context(instance=instance, repository_def=REPOSITORY) as context:
            fitting, set_aside = divide(context, [good, asked, good])
    if cause is None:
        assert (fitting, set_aside) == ([good.request, asked.request, good.request], [])
        return
    assert fitting == [good.request, good.request]
    (one,) = set_aside
    assert one.candidate is asked
    assert cause in one.cause
    assert "\n" not in one.cause
    assert len(one.cause) <= MAX_CAUSE_CHARACTERS


def test_a_job_has_one_kind_of_alert() -> None:
    assert alert_kind("retraining_job") == "retraining_job_failed"
