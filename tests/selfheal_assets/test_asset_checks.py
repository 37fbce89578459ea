"""Asset checks only check: what they find is as it was afterwards."""

from __future__ import annotations

import dagster as dg
import pytest

from selfheal.adapters.mlflow_registry import PRODUCTION_ALIAS
from tests.candidates import twin_of_champion
from tests.selfheal_assets.conftest import Dagster
from tests.selfheal_assets.sensors.evaluating import evaluate
from tests.traffic import serve, toy_rows

pytestmark = pytest.mark.integration


def checked(dagster: Dagster, asset: str, name: str) -> dg.AssetCheckEvaluation:
    """As a person does in the UI: one check, and no asset."""
    job = dagster.definitions.resolve_implicit_global_asset_job_def()
    key = dg.AssetCheckKey(dg.AssetKey(asset), name)
    run = job.get_subset(asset_check_selection={key}, asset_selection=set())
    (evaluation,) = run.execute_in_process(instance=dagster.instance).get_asset_check_evaluations()
    return evaluation


def test_a_moved_alias_is_found_and_left_to_the_reconciler(dagster: Dagster) -> None:
    registry = dagster.platform.registry
    registry.point_alias(PRODUCTION_ALIAS, registry.register(twin_of_champion(dagster.platform)))
    for _ in range(2):
        found = checked(dagster, "production_model", "alias_follows_postgres")
        assert not found.passed
        assert "points at version 2, but 1 is in production" in (found.description or "")
    assert registry.alias_version(PRODUCTION_ALIAS) == 2, "a check only checks"
    evaluate(dagster, "registry_sensor")
    assert checked(dagster, "production_model", "alias_follows_postgres").passed


def test_an_mlflow_that_does_not_answer_is_no_pass(dagster: Dagster, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise ConnectionError("no answer")

    monkeypatch.setattr("selfheal.adapters.mlflow_registry.Registry.alias_version", away)
    found = checked(dagster, "production_model", "alias_follows_postgres")
    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.WARN
    assert "no answer" in (found.description or "")


@pytest.mark.parametrize(
    ("asset", "name", "found"),
    [
        (
            "prediction_logs",
            "journal_is_copied",
            "0 bytes of journal are not copied yet; up to 1,000,000 are a matter of seconds.",
        ),
        (
            "label_store",
            "labels_have_predictions",
            "0 of 15 labels (0.0 %) have no prediction in the log; up to 5 % may run ahead of theirs.",
        ),
    ],
)
def test_a_check_says_what_it_found_with_value_and_limit(dagster: Dagster, asset: str, name: str, found: str) -> None:
    serve(dagster.platform, toy_rows(30), labelled_share=0.5)
    assert checked(dagster, asset, name).description == found
