"""After a change every label teaches and judges; the verdict, its repetition and the promotion rest on what is stored of that."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from selfheal.adapters.mlflow_registry import CROSS_FITTED_FILE
from selfheal.adapters.postgres import decisions
from selfheal.adapters.postgres.baseline import to_parquet
from selfheal.domain.records import Action, Trigger, Verdict
from selfheal.domain.retraining.class_counts import EVALUATION
from selfheal.kit.errors import IntegrityError
from selfheal.services.platform import Platform
from selfheal.services.promotion import final_validation
from selfheal.services.promotion.going_live import promote
from selfheal.services.retraining import gather_training_set, judge, train_shadow
from selfheal.services.verification.artifacts import check_training_sets, cross_fitted_problems
from selfheal.services.verification.reproduction import reproduce
from selfheal.services.verification.verdicts import verdict_differences
from tests import builders
from tests.candidates import mlflow_client
from tests.services.steps import decide, tick, whole_tick
from tests.traffic import SECOND, serve, toy_rows

HOUR = timedelta(hours=1)


def test_a_verdict_after_a_change_rests_on_all_labels_and_can_be_reached_again(platform: Platform) -> None:
    before = serve(platform, toy_rows(1_500))
    after = serve(platform, toy_rows(700, seed=5, scenario="overheating"), start=before.last_at + HOUR)
    tick(platform, after.last_at + SECOND)
    now = after.last_at + HOUR
    decision = decide(platform, Trigger.DRIFT, now, "e1")
    assert decision.onset is not None
    rows = gather_training_set(platform, decision, None, now)
    assert rows.is_cross_fitted
    assert len(rows.part(EVALUATION)) == decision.n_labels

    shadow = train_shadow(platform, rows, now)
    found = platform.registry.cross_fitted(shadow)
    assert found is not None
    assert len(found.probabilities) == decision.n_labels
    verdict = judge(platform, shadow, rows, now)
    assert verdict.decision.action is Action.PROMOTE
    assert {gate.n_rows for gate in verdict.decision.gates if gate.name == "f1_improvement"} == {decision.n_labels}
    assert verdict_differences(platform, verdict.decision) == []
    assert decisions.recent(platform.store, 1)[0].cross_fitted_sha256 == shadow.cross_fitted_sha256 is not None

    with pytest.MonkeyPatch.context() as patched:
        others = replace(found, decisions=1 - found.decisions)
        patched.setattr(platform.registry, "cross_fitted", lambda _: others)
        assert any(one.startswith("f1_improvement") for one in verdict_differences(platform, verdict.decision))
        patched.setattr(platform.registry, "cross_fitted", lambda _: None)
        with pytest.raises(IntegrityError, match="does not say what it was judged by"):
            verdict_differences(platform, verdict.decision)

    live = promote(platform, verdict, now)
    assert live.n_samples == rows.info.n_rows
    again = reproduce(platform, live.version)
    assert again.differences == ()
    assert again.is_identical

    served = serve(platform, toy_rows(600, seed=6, scenario="overheating"), start=now + HOUR)
    assert whole_tick(platform, served.last_at + SECOND).verdict is Verdict.STABLE
    with (
        pytest.MonkeyPatch.context() as patched
    ):  # MLflow is away: what this machine has loaded is examined all the same
        patched.setattr(platform.registry, "_client", lambda: pytest.fail("a version is examined without MLflow"))
        final_validation.validate(platform, live)

    checked = check_training_sets(platform, [verdict.decision], lambda _: None, with_versions=False)
    assert (checked.n_checked, checked.findings) == (2, ())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / CROSS_FITTED_FILE
        path.write_bytes(to_parquet(others.to_frame()))
        mlflow_client(platform).log_artifact(shadow.mlflow_run_id, str(path))
    checked = check_training_sets(platform, [verdict.decision], lambda _: None, with_versions=False)
    assert len(checked.findings) == 1
    assert f"its run names {shadow.cross_fitted_sha256}" in checked.findings[0]


OF_VERDICT = builders.decision(action=Action.PROMOTE, cross_fitted_sha256="a" * 64)


def test_what_a_challenger_was_judged_by_must_be_what_the_chain_says_also_if_its_run_was_changed_with_it() -> None:
    (problem,) = cross_fitted_problems("b" * 64, "b" * 64, [OF_VERDICT])
    assert problem.endswith(f"decision {OF_VERDICT.decision_id} rests on {'a' * 64}")
    assert len(list(cross_fitted_problems("a" * 64, "b" * 64, [OF_VERDICT]))) == 1
    assert list(cross_fitted_problems("a" * 64, "a" * 64, [OF_VERDICT])) == []


def test_a_verdict_of_a_release_that_recorded_no_such_digest_is_sound() -> None:
    assert list(cross_fitted_problems("a" * 64, "a" * 64, [replace(OF_VERDICT, cross_fitted_sha256=None)])) == []
