"""The platform at a glance: what is known is said, what is not known is None."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from selfheal.adapters.postgres import alerts as alert_queries
from selfheal.adapters.postgres import ticks
from selfheal.domain.records import (
    Alert,
    Interval,
    ProbationOutcome,
    ProxyMetrics,
    Severity,
    TickRecord,
    Tone,
    Triage,
    Verdict,
)
from selfheal.services.platform import Platform
from selfheal.services.promotion.going_live import promote, rollback
from selfheal.services.reports.files import results_folder, save_tick
from selfheal.services.status import SENTENCES, TONE_WORDS, Facts, overview, probation_sentence, state_of
from tests import builders
from tests.candidates import champion, passed, twin_of_champion
from tests.times import T0
from tests.traffic import serve, toy_rows


def record_tick(platform: Platform, verdict: Verdict, *alerts: Alert, minute: int = 0) -> None:
    now = T0 + timedelta(minutes=minute)
    seen = builders.window(model_version=champion(platform).version, end=now)
    outcome = Triage(seen, verdict, ("first reason", "second reason"), alerts, None)
    drift = builders.drift_report(window=seen)
    proxy = ProxyMetrics(seen, 0.2, 0.3, 0.1, 0.9)
    ticks.record_tick(platform.store, proxy, drift, builders.performance(window=seen), outcome, now)
    alert_queries.sync_alerts(platform.store, outcome, now)


def test_before_the_bootstrap_everything_is_unknown_and_the_remedy_is_named(empty_platform: Platform) -> None:
    assert overview(empty_platform, T0) == {
        "at": T0,
        "sentence": "No version is in production: run `selfheal bootstrap`.",
        "tone": "unknown",
        "model": None,
        "traffic": None,
        "stalls": [
            {
                "state": "no version in production",
                "alert_kind": "no_production_version",
                "sentence": "nothing has been trained yet; run `selfheal bootstrap`",
            }
        ],
        "latest_tick": None,
        "labels": "how long they take is unknown here: no tick has measured it, or its file is on another host",
        "quality": None,
        "open_alerts": [],
        "decisions": [],
        "latest_verdict": None,
    }


def test_after_the_bootstrap_the_model_is_known_and_the_traffic_is_not(platform: Platform) -> None:
    shown = overview(platform)
    assert shown["sentence"] == "No monitoring tick has run yet."
    assert shown["latest_tick"] is None
    model = shown["model"]
    assert (model["name"], model["version"], model["trigger"]) == ("machine_failure", 1, "bootstrap")
    assert (model["in_production_since"], model["replaced_version"]) == (T0, None)
    assert model["f1_in_evaluation"] == champion(platform).metrics["f1"]
    decided = [(decision["action"], decision["challenger_version"]) for decision in shown["decisions"]]
    assert decided == [("promote", 1), ("train", None)]


def test_the_latest_verdict_is_said_in_a_sentence_of_its_own(platform: Platform) -> None:
    for minute, verdict in enumerate(Verdict):
        record_tick(platform, verdict, minute=minute)
        shown = overview(platform)
        assert shown["sentence"] == SENTENCES[verdict]
        tick = shown["latest_tick"]
        assert (tick["verdict"], tick["reasons"]) == (verdict.value, "first reason; second reason")
        assert (tick["predictions"], tick["labels"], tick["drifted_features"]) == (1_000, 400, "none")
    assert len(set(SENTENCES.values())) == len(Verdict)


def test_open_alerts_are_shown_and_resolved_ones_are_not(platform: Platform) -> None:
    alert = Alert("harmful_shift", Severity.CRITICAL, "losing")
    record_tick(platform, Verdict.HARMFUL_SHIFT, alert)
    (shown,) = overview(platform)["open_alerts"]
    assert (shown["kind"], shown["severity"], shown["message"]) == ("harmful_shift", "critical", "losing")
    record_tick(platform, Verdict.STABLE, minute=1)
    assert overview(platform)["open_alerts"] == []


def test_what_the_replaced_version_saw_is_not_shown_for_the_new_one(platform: Platform) -> None:
    record_tick(platform, Verdict.HARMFUL_SHIFT)
    promote(platform, passed(platform, twin_of_champion(platform)), T0)
    shown = overview(platform)
    assert (shown["model"]["version"], shown["model"]["replaced_version"]) == (2, 1)
    assert shown["latest_tick"] is None
    rollback(platform, to_version=None, reason="worse", actor="ada", now=T0)
    assert overview(platform)["decisions"][0]["action"] == "rollback"


# The state in one sentence

WELL = Facts(
    champion_version=1,
    verdict=Verdict.STABLE,
    monitoring_interval=timedelta(minutes=5),
    max_silence=timedelta(hours=24),
    unseen_for=timedelta(minutes=1),
    silent_for=timedelta(seconds=3),
)


def test_only_a_stable_verdict_that_is_fresh_and_without_critical_alerts_is_good() -> None:
    assert state_of(WELL) == (state_of(replace(WELL, unseen_for=None)))
    assert state_of(WELL).tone is Tone.GOOD
    for verdict in (None, *Verdict):
        if verdict is not Verdict.STABLE:
            assert state_of(replace(WELL, verdict=verdict)).tone is not Tone.GOOD, verdict


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"champion_version": None}, "selfheal bootstrap"),
        ({"unseen_for": timedelta(minutes=15, seconds=1)}, "The monitor is late: predictions have waited 15 min"),
        ({"silent_for": timedelta(hours=25)}, "No prediction has come for 1 d 1 h"),
        ({"verdict": None}, "No monitoring tick has run yet"),
        ({"verdict": Verdict.INSUFFICIENT}, "too little traffic"),
    ],
)
def test_what_is_not_known_is_never_good_and_each_cause_reads_differently(change: dict[str, object], told: str) -> None:
    state = state_of(replace(WELL, **change))  # type: ignore[arg-type]
    assert state.tone is Tone.UNKNOWN
    assert told in state.sentence


def test_a_monitor_that_is_late_hides_the_verdict_it_gave_before() -> None:
    late = replace(WELL, verdict=Verdict.HARMFUL_SHIFT, unseen_for=timedelta(hours=2))
    assert "is unknown" in state_of(late).sentence
    assert SENTENCES[Verdict.HARMFUL_SHIFT] not in state_of(late).sentence


def test_a_critical_alert_spoils_a_stable_verdict_and_adds_nothing_to_harm() -> None:
    one, two = (state_of(replace(WELL, critical_alerts=n)) for n in (1, 2))
    assert (one.tone, two.tone) == (Tone.BAD, Tone.BAD)
    assert one.sentence == "The traffic looks as it did in training, but a critical alert is open."
    assert "2 critical alerts are open" in two.sentence
    harm = replace(WELL, verdict=Verdict.HARMFUL_SHIFT)
    assert state_of(replace(harm, critical_alerts=3)) == state_of(harm)


def test_each_tone_has_a_word_for_those_who_see_no_colour() -> None:
    assert set(TONE_WORDS) == set(Tone)
    assert len(set(TONE_WORDS.values())) == len(Tone)


def test_a_probation_is_told_with_its_end_or_its_outcome() -> None:
    fresh = builders.model_version(
        version=2, previous_version=1, promoted_at=T0, probation_until=T0 + timedelta(days=3)
    )
    assert probation_sentence(fresh, None, T0) == "on probation against version 1: 3 d left"
    assert "the last evaluation is due" in probation_sentence(fresh, None, T0 + timedelta(days=4))
    told = [probation_sentence(fresh, outcome, T0) for outcome in ProbationOutcome]
    assert [words.split(":")[0].split(",")[0] for words in told] == ["passed", "failed", "over"]
    assert probation_sentence(replace(fresh, probation_until=None), None, T0).startswith("not on probation")


# Beyond the sentence


def test_a_critical_alert_of_the_api_is_in_the_sentence_and_the_monitors_own_is_not(platform: Platform) -> None:
    record_tick(platform, Verdict.BENIGN_SHIFT, Alert("dataset_drift", Severity.CRITICAL, "drifted"))
    assert overview(platform, T0)["sentence"] == SENTENCES[Verdict.BENIGN_SHIFT]
    alert_queries.open_or_update_alert(
        platform.store, "serving", None, Alert("journal_lag", Severity.CRITICAL, "late"), T0
    )
    assert overview(platform, T0)["sentence"].endswith("but a critical alert is open.")


def test_intervals_come_from_the_ticks_file_and_are_unknown_without_it(platform: Platform) -> None:
    seen = builders.window(model_version=1, end=T0)
    performance = replace(builders.performance(window=seen), realised_intervals={"f1": Interval(0.5, 0.7)})
    outcome = Triage(seen, Verdict.STABLE, ("as ever",), (), None)
    proxy, drift = ProxyMetrics(seen, 0.2, 0.3, 0.1, 0.9), builders.drift_report(window=seen)
    ticks.record_tick(platform.store, proxy, drift, performance, outcome, T0)

    def f1() -> dict[str, object]:
        return next(row for row in overview(platform, T0)["quality"] if row["metric"] == "f1")

    assert performance.realised is not None
    assert (f1()["realised"], f1()["realised_interval"]) == (performance.realised.f1, None)
    save_tick(TickRecord(outcome, proxy, drift, performance), results_folder(platform.settings.data_dir))
    assert f1()["realised_interval"] == {"low": 0.5, "high": 0.7}


def test_the_latest_verdict_of_the_gates_is_shown_with_all_of_them(platform: Platform) -> None:
    verdict = overview(platform, T0)["latest_verdict"]
    assert verdict["action"] == "promote"
    assert verdict["gates"]
    assert all(gate["sentence"] and gate["status"] for gate in verdict["gates"])


def test_traffic_is_counted_over_the_last_minute(platform: Platform) -> None:
    sent = serve(platform, toy_rows(60))
    traffic = overview(platform, sent.last_at)["traffic"]
    assert traffic["newest_prediction_at"] == sent.last_at
    assert 0 < traffic["predictions_per_second"] <= 1.0
    assert overview(platform, sent.last_at + timedelta(minutes=2))["traffic"]["predictions_per_second"] == 0
