"""What `judge` adds to the gates: the look, live traffic, what is kept, and models that do not score."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from typer.testing import CliRunner

from selfheal import cli
from selfheal.adapters.mlflow_registry import Registry
from selfheal.adapters.postgres import decisions, model_versions
from selfheal.cli import versions
from selfheal.domain.contract import FloatArray
from selfheal.domain.records import Action, GateStatus, GateVerdict, ShadowModel, Trigger
from selfheal.domain.retraining.dataset import TrainingSet
from selfheal.domain.retraining.evidence import FULL_LEVEL_ROWS, whole_verdicts
from selfheal.domain.retraining.gates import GATES
from selfheal.domain.retraining.judging import EARLIER_VERDICTS, evaluate_gates, gates_of_verdict, recorded_place
from selfheal.kit.serialization import digest_of
from selfheal.services.live_traffic import score_live_traffic, wanted_labels
from selfheal.services.platform import Platform, open_platform
from selfheal.services.retraining import evaluation_of, gate_limits, gather_training_set, judge, train_shadow
from selfheal.services.scoring import try_scores
from selfheal.services.verification.verdicts import verdict_differences
from selfheal.settings import Settings, load_settings
from tests.at_once import at_once
from tests.candidates import twin_of_champion
from tests.services.steps import decide, tick
from tests.times import T0
from tests.traffic import SECOND, ingest_all, journal_labels, serve, toy_rows

HOUR = timedelta(hours=1)
N_ROWS = 1_500
FIRST_LIMITS = {
    "min_f1_improvement_pct": 2.0,
    "max_brier_degradation": 0.01,
    "min_samples": 200,
    "min_coverage_pct": 30.0,
    "min_recall": 0.3,
    "min_auc": 0.72,
    "level": 0.05,
    "segments": "report",
    "seed": 20,
}


def candidate(
    platform: Platform, *, scenario: str = "calm", seed: int = 1
) -> tuple[ShadowModel, TrainingSet, datetime]:
    """A shadow model of the champion's labelled traffic, and its training set."""
    sent = serve(platform, toy_rows(N_ROWS, seed, scenario), start=T0 + seed * HOUR)
    now = sent.last_at + HOUR
    tick(platform, now)
    rows = gather_training_set(platform, decide(platform, Trigger.MANUAL, now), None, now)
    return train_shadow(platform, rows, now), rows, now


def statuses(verdict: GateVerdict) -> dict[str, GateStatus]:
    return {gate.name: gate.status for gate in verdict.decision.gates}


class Answering:
    """A pipeline that answers as it is told to."""

    def __init__(self, answer: Callable[[FloatArray], FloatArray]) -> None:
        self._answer = answer

    def predict_proba(self, features: FloatArray) -> FloatArray:
        return self._answer(features)


def replace_model(
    monkeypatch: pytest.MonkeyPatch, shadow: ShadowModel, answer: Callable[[FloatArray], FloatArray]
) -> None:
    """The shadow's file loads as a model that answers otherwise; every other model is as it was."""
    original = Registry.load

    def load(self: Registry, model: object, **options: bool) -> object:
        is_shadow = isinstance(model, ShadowModel) and model.mlflow_run_id == shadow.mlflow_run_id
        return Answering(answer) if is_shadow else original(self, model, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Registry, "load", load)


def test_each_verdict_on_a_champion_is_a_look_whatever_asked_for_it(platform: Platform) -> None:
    looks = []
    for seed in (1, 2):
        shadow, rows, now = candidate(platform, seed=seed)
        looks.append(judge(platform, shadow, rows, now).decision.verdict_number)
        assert judge(platform, shadow, rows, now + HOUR).decision.verdict_number == seed, "judging again is no new look"
    assert looks == [1, 2]


def test_a_verdict_after_one_on_few_rows_goes_on_where_that_one_left_the_level(platform: Platform) -> None:
    """And it is reached again with the same level."""
    first, second = (judge(platform, *candidate(platform, seed=seed)).decision for seed in (1, 2))
    n_rows = first.gates[0].n_rows
    assert n_rows is not None
    assert n_rows < FULL_LEVEL_ROWS
    assert EARLIER_VERDICTS not in (first.gate_config or {}), "none is before it"
    assert (second.gate_config or {})[EARLIER_VERDICTS] == whole_verdicts(n_rows)
    assert recorded_place(second) == 1 + whole_verdicts(n_rows)
    assert verdict_differences(platform, second) == []


def test_two_verdicts_at_once_are_two_looks(platform: Platform) -> None:
    candidates = [candidate(platform, seed=seed) for seed in (1, 2)]
    now = candidates[1][2]
    verdicts = at_once([lambda s=shadow, r=rows: judge(platform, s, r, now) for shadow, rows, _ in candidates])
    assert sorted(verdict.decision.verdict_number or 0 for verdict in verdicts) == [1, 2]


def test_a_verdict_keeps_what_it_takes_to_reach_it_again(platform: Platform) -> None:
    shadow, rows, now = candidate(platform)
    kept = decisions.find(platform.store, judge(platform, shadow, rows, now).decision.decision_id)
    assert kept is not None
    assert kept.gate_config is not None
    assert kept.verdict_number is not None
    assert kept.gate_config_sha256 == digest_of(kept.gate_config)
    champion = model_versions.champion(platform.store)
    evaluation = evaluation_of(platform, shadow, champion, rows, kept.n_labels)
    gates, limits = gates_of_verdict(kept.gate_config, [gate.name for gate in kept.gates])
    again = evaluate_gates(evaluation, limits, kept.verdict_number, gates=gates)
    assert again.gates == kept.gates[: len(again.gates)], "to the last bit"
    assert [gate.name for gate in kept.gates] == [gate.name for gate in GATES]
    assert [gate.name for gate in gates] == [gate.name for gate in GATES if gate.rests_on == "evaluation"]


@pytest.mark.parametrize(
    ("settings", "stored", "sha256"),
    [
        ({}, {}, "a51f3ad915029527472c7a41fcee3eeb65f4a9869d7bdfec66cf3cffa0d53114"),
        (
            {"min_recall": 0, "min_coverage_pct": 25, "gate_segments": "enforce", "random_seed": 7},
            {"min_recall": 0.0, "min_coverage_pct": 25.0, "segments": "enforce", "seed": 7},
            "612e96ed9093cc2f768ac8faf78ff70f0d6f9ad50cc6782c1909cc59e06cb624",
        ),
    ],
)
def test_the_limits_are_stored_under_the_keys_and_hashed_to_the_digest_that_they_always_had(
    settings: dict[str, Any], stored: dict[str, Any], sha256: str
) -> None:
    """Commit 8598769 stored these digests. Its challengers, judged again by the same limits, get the recorded verdict."""
    in_force = gate_limits(load_settings(**settings))
    limits = {name: in_force[name] for name in FIRST_LIMITS}  # a gate that was added since has keys of its own
    assert limits == FIRST_LIMITS | stored
    assert digest_of(limits) == sha256


def test_the_challenger_scores_the_champions_live_traffic_before_it_serves_any(platform: Platform) -> None:
    shadow, rows, now = candidate(platform, scenario="overheating")
    unlabelled = serve(platform, toy_rows(300, 9, "overheating"), start=now, labelled_share=0.0)
    verdict = judge(platform, shadow, rows, unlabelled.last_at)
    seen = verdict.shadow_scoring
    assert seen is not None
    assert (seen.model_version, seen.n_rows, seen.last_at) == (1, N_ROWS + 300, unlabelled.last_at)
    assert seen.agreement is not None
    assert seen.agreement < 1.0
    assert seen.ks_distance is not None
    assert seen.ks_distance > 0.1, "the summer is hot"
    assert seen.latency_ms_per_row is not None
    assert seen.latency_ms_single is not None
    assert 0 < seen.latency_ms_per_row < seen.latency_ms_single
    assert statuses(verdict)["shadow_scoring"] is GateStatus.PASS


def test_no_more_live_rows_are_scored_than_monitoring_looks_at(make_settings: Callable[..., Settings]) -> None:
    platform = open_platform(make_settings(monitoring_max_rows=200))
    twin, champion = twin_of_champion(platform), model_versions.champion(platform.store)
    assert score_live_traffic(platform, twin, champion) is None, "it has served nothing yet"
    sent = serve(platform, toy_rows(250))
    live = score_live_traffic(platform, twin, champion)
    assert live is not None
    assert (live.scoring.n_rows, live.scoring.first_at) == (200, sent.created_at[50])
    assert live.scoring.agreement == 1.0, "a twin says what was logged"
    assert live.scoring.largest_score_difference == 0.0
    assert live.disputed == ()
    platform.close()


def test_without_live_traffic_there_is_no_shadow_scoring(platform: Platform) -> None:
    first = next(d for d in decisions.recent(platform.store) if d.action is Action.PROMOTE)
    assert first.verdict_number is None
    found = {gate.name: gate.status for gate in first.gates}
    assert found["shadow_scoring"] is found["segments"] is GateStatus.NOT_APPLICABLE


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x: np.full((len(x), 2), np.nan), "no probability for 20 of 20 rows"),
        (lambda x: np.full((len(x), 2), [-0.5, 1.5]), "no probability for 20 of 20 rows"),
        (lambda x: np.full(len(x), 0.5), "it answers 64 rows with an array of shape (64,)"),
        (lambda x: x[:, 99], "IndexError: index 99 is out of bounds"),
    ],
    ids=["NaN", "no probability", "wrong shape", "raises"],
)
def test_what_is_wrong_with_a_models_answer_is_told(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, answer: Callable[[FloatArray], FloatArray], words: str
) -> None:
    monkeypatch.setattr(Registry, "load", lambda *_: Answering(answer))
    scores = try_scores(
        platform, model_versions.champion(platform.store), platform.contract.feature_frame(toy_rows(20))
    )
    assert scores.problem is not None
    assert scores.problem.startswith(words)


def test_a_challenger_that_does_not_score_is_rejected_and_production_is_untouched(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    shadow, rows, now = candidate(platform)
    before = model_versions.list_versions(platform.store)
    replace_model(monkeypatch, shadow, lambda x: np.full((len(x), 2), np.nan))
    verdict = judge(platform, shadow, rows, now)
    assert verdict.decision.action is Action.REJECT
    assert "the challenger cannot be judged: no probability for 450 of 450 rows" in verdict.decision.reason
    assert statuses(verdict)["shadow_scoring"] is GateStatus.FAIL
    assert verdict.challenger_metrics is None
    assert model_versions.list_versions(platform.store) == before


def test_a_challenger_that_fails_on_live_rows_alone_is_rejected(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its evaluation rows are hot; live traffic has a temperature that it cannot bear."""
    shadow, rows, now = candidate(platform, scenario="overheating")
    sent = serve(platform, toy_rows(50, 3), start=now, labelled_share=0.0)
    load_ratio = platform.contract.feature_names.index("load_ratio")
    bad = sent.features["load_ratio"].iloc[-1]
    pipeline = platform.registry.load(shadow)

    def answer(features: FloatArray) -> FloatArray:
        given = pipeline.predict_proba(features)
        given[features[:, load_ratio] == bad] = np.nan
        return given

    replace_model(monkeypatch, shadow, answer)
    verdict = judge(platform, shadow, rows, sent.last_at)
    failed = {name for name, status in statuses(verdict).items() if status is GateStatus.FAIL}
    assert failed == {"shadow_scoring"}
    assert verdict.decision.action is Action.REJECT


# Which labels to get first


def inconclusive(make_settings: Callable[..., Settings]) -> tuple[Platform, GateVerdict, datetime]:
    """A challenger that is better, by a coverage that is not enough; 300 of its champion's predictions have no label."""
    platform = open_platform(make_settings(min_coverage_pct=30.0))
    shadow, rows, now = candidate(platform, scenario="overheating")
    sent = serve(platform, toy_rows(300, 9, "overheating"), start=now, labelled_share=0.0)
    few = replace(rows, info=replace(rows.info, label_coverage_pct=20.0))
    return platform, judge(platform, shadow, few, sent.last_at), sent.last_at


def test_an_inconclusive_verdict_lists_what_is_worth_labelling_and_so_does_the_command(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    platform, verdict, now = inconclusive(make_settings)
    assert verdict.decision.action is Action.INCONCLUSIVE
    assert "about 750 more labels" in verdict.decision.reason
    listed = verdict.worth_labelling
    assert 1 <= len(listed) <= 100
    thresholds = model_versions.champion(platform.store).threshold, verdict.shadow.threshold
    for wanted in listed:
        scores = wanted.champion_probability, wanted.challenger_probability
        assert (scores[0] >= thresholds[0]) != (scores[1] >= thresholds[1])

    monkeypatch.setattr(versions, "load_settings", lambda: platform.settings)
    result = CliRunner().invoke(cli.app, ["worth-labelling", "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["reason"] == verdict.decision.reason
    assert [w["prediction_id"] for w in told["predictions"]] == [w.prediction_id for w in listed]
    assert listed[0].prediction_id[:8] in CliRunner().invoke(cli.app, ["worth-labelling"]).stdout

    journal_labels(platform.settings.data_dir, [UUID(listed[0].prediction_id)], [1], received_at=now + SECOND)
    ingest_all(platform)
    left = wanted_labels(platform).predictions
    assert listed[0] not in left, "a label that has come is not asked for again"
    assert set(listed[1:]) <= set(left)
    platform.close()


def test_a_verdict_that_is_not_open_asks_for_no_label(platform: Platform) -> None:
    assert wanted_labels(platform).reason == "no challenger of version 1 has been judged yet"
    shadow, rows, now = candidate(platform)
    verdict = judge(platform, shadow, rows, now)
    assert verdict.decision.action is Action.REJECT
    assert verdict.worth_labelling == ()
    assert wanted_labels(platform).reason.startswith("the newest verdict is not open (reject): F1 ")
