"""The platform at a glance: what is known is said, what is not known is None."""

from __future__ import annotations

from datetime import timedelta

from selfheal.overview import SENTENCES, overview
from selfheal.platform import Platform
from selfheal.promotion.going_live import promote, rollback
from selfheal.records import Alert, ProxyMetrics, Severity, Triage, Verdict
from selfheal.store import monitoring
from tests import builders
from tests.candidates import champion, passed, twin_of_champion
from tests.times import T0


def record_tick(platform: Platform, verdict: Verdict, *alerts: Alert, minute: int = 0) -> None:
    now = T0 + timedelta(minutes=minute)
    seen = builders.window(model_version=champion(platform).version, end=now)
    outcome = Triage(seen, verdict, ("first reason", "second reason"), alerts, None)
    drift = builders.drift_report(window=seen)
    proxy = ProxyMetrics(seen, 0.2, 0.3, 0.1, 0.9)
    monitoring.record_tick(platform.store, proxy, drift, builders.performance(window=seen), outcome, now)
    monitoring.sync_alerts(platform.store, outcome, now)


def test_before_the_bootstrap_everything_is_unknown_and_the_remedy_is_named(empty_platform: Platform) -> None:
    assert overview(empty_platform) == {
        "sentence": "No version is in production: run `selfheal bootstrap`.",
        "model": None,
        "latest_tick": None,
        "open_alerts": [],
        "decisions": [],
    }


def test_after_the_bootstrap_the_model_is_known_and_the_traffic_is_not(platform: Platform) -> None:
    shown = overview(platform)
    assert shown["sentence"] == "The traffic has not been looked at yet."
    assert shown["latest_tick"] is None
    model = shown["model"]
    assert (model["name"], model["version"], model["trigger"]) == ("machine_failure", 1, "bootstrap")
    assert (model["in_production_since"], model["replaced_version"]) == (T0, None)
    assert model["f1_in_evaluation"] == champion(platform).metrics["f1"]
    assert [decision["action"] for decision in shown["decisions"]] == ["promote", "train"]


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
