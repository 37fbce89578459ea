"""Rules of the settings: where they come from, what is refused and how, and that secrets stay secret."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from selfheal.cli.setting_sources import settings_sources
from selfheal.kit.errors import ConfigurationError
from selfheal.settings import FORMER_NAMES, load_settings
from tests.environment import forget_settings

SECRET = "s3cr3t-value"


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`.env` is read from the working folder."""
    monkeypatch.chdir(tmp_path)
    forget_settings(monkeypatch)


def refusal(**overrides: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(**overrides)
    return str(caught.value)


def test_the_defaults_are_those_of_the_design() -> None:
    settings = load_settings()
    assert (settings.monitoring_interval, settings.monitoring_lookback) == (300, 24)
    assert (settings.min_f1_improvement_pct, settings.max_brier_degradation) == (2.0, 0.01)
    assert (settings.min_samples_for_decision, settings.min_coverage_pct, settings.min_auc) == (200, 30.0, 0.72)
    assert (settings.promotion_cooldown_days, settings.false_alarm_budget_days) == (7.0, 90.0)
    assert not settings.has_external_database


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("monitoring_interval", "4", "greater than or equal to 5"),
        ("monitoring_interval", "86401", "less than or equal to 86400"),
        ("monitoring_interval", "soon", "valid integer"),
        ("monitoring_interval", "5.5", "valid integer"),
        ("min_auc", "0.4", "greater than or equal to 0.5"),
        ("min_auc", "nan", "less than or equal to 1"),
        ("max_brier_degradation", "inf", "less than or equal to 1"),
        ("gate_level", "0", "greater than 0"),
        ("min_samples_for_decision", "29", "greater than or equal to 30"),
        ("api_port", "65536", "less than or equal to 65535"),
        ("mlops_db_name", "My-Db", "match pattern"),
        ("use_case", "credit_risk", "of the form package.module:contract"),
        ("log_level", "LOUD", "'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
        ("data_rows", "499", "greater than or equal to 500"),
        ("api_public_url", "risk.example", "valid URL"),
        ("mlflow_public_url", "file:///etc", "'http' or 'https'"),
        ("data_delimiter", ";;", "must be one character"),
        ("data_delimiter", "5", "must be one character"),
        ("data_decimal", ";", "must be . or ,"),
        ("data_missing_words", '"?', "a quote is opened and not closed"),
        ("rate_limit_per_second", "0", "greater than or equal to 0.01"),
        ("rate_limit_per_second", "nan", "less than or equal to 1000000"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name_the_value_and_what_is_allowed(
    name: str, value: str, allowed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name.upper(), value)
    message = refusal()
    assert f"{name.upper()}={value}: " in message
    assert allowed in message


def test_every_wrong_setting_is_named_at_once() -> None:
    message = refusal(min_auc=2, api_port=0)
    assert "MIN_AUC=2" in message
    assert "API_PORT=0" in message


def test_a_word_for_both_true_and_false_is_refused_in_our_words() -> None:
    assert refusal(data_true_words="yes,x", data_false_words="no,X") == (
        "wrong setting: DATA_FALSE_WORDS=no,X: x is in DATA_TRUE_WORDS too; a word stands for one of them"
    )


@pytest.mark.parametrize("name", ["database_url", "postgres_password", "api_keys", "api_key", "notify_urls"])
def test_a_refusal_does_not_reveal_a_secret(name: str) -> None:
    message = refusal(**{name: [SECRET]})
    assert f"{name.upper()}=***" in message
    assert SECRET not in message


def test_a_wrong_api_key_entry_is_told_by_its_place_and_not_shown() -> None:
    message = refusal(api_keys=f"a:read:{'ab' * 32},scorer:score:{SECRET}")
    assert "API_KEYS=***" in message
    assert "entry 2" in message
    assert SECRET not in message


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None),
        ({"api_keys": f"a:read:{'ab' * 32}"}, None),
        ({"api_keys": f"a:read:{'ab' * 32},one,two"}, "one"),
        ({"api_keys": "one", "api_key": "mine"}, "mine"),
    ],
)
def test_our_own_clients_have_a_key_if_one_is_known_in_plain(given: dict[str, str], expected: str | None) -> None:
    assert load_settings(**given).own_api_key == expected


def test_printing_the_settings_does_not_reveal_a_secret() -> None:
    settings = load_settings(
        database_url=f"postgresql://u:{SECRET}@h/d",
        postgres_password=SECRET,
        api_keys=SECRET,
        notify_urls=f"json://h/{SECRET}",
    )
    for shown in (repr(settings), str(settings), settings.model_dump_json(), str(settings.model_dump())):
        assert SECRET not in shown


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_settings().api_port = 1


def test_an_argument_beats_the_environment_and_the_environment_beats_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("MIN_AUC=0.8\nMIN_RECALL=0.4\nAPI_PORT=8100\n")
    monkeypatch.setenv("MIN_RECALL", "0.5")
    monkeypatch.setenv("API_PORT", "8200")
    settings = load_settings(api_port=8300)
    assert (settings.min_auc, settings.min_recall, settings.api_port) == (0.8, 0.5, 8300)


def test_an_empty_value_means_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "")
    monkeypatch.setenv("MIN_AUC", "")
    assert load_settings().database_url is None
    assert load_settings().min_auc == 0.72


def test_the_source_of_each_setting_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("export MIN_AUC=0.8\nmin_recall=0.4\nAPI_PORT=\n# MLFLOW_PORT=5001\nGATE_LEVEL=0.1\n")
    monkeypatch.setenv("MIN_RECALL", "0.5")
    monkeypatch.setenv("MONITORING_LOOKBACK", "")
    settings = load_settings()
    sources = settings_sources(settings)
    told = {name: source for name, source in sources.items() if source != "default"}
    assert told == {"min_auc": ".env", "gate_level": ".env", "min_recall": "environment"}
    assert set(sources) == set(type(settings).model_fields)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"database_url": "postgresql://u:p@h:5/old"}, "postgresql://u:p@h:5/new"),
        ({"database_url": "postgresql+psycopg2://u@h/old?sslmode=require"}, "postgresql://u@h/new?sslmode=require"),
        ({"database_url": "postgresql://h"}, "postgresql://h/new"),
        ({"database_url": "postgres://u:p@h:5/old"}, "postgresql://u:p@h:5/new"),
        ({"postgres_host": "h"}, "postgresql://postgres@h:5432/new"),
        ({"postgres_host": "::1"}, "postgresql://postgres@/new?host=%3A%3A1&port=5432"),
        ({"postgres_host": "one,two"}, "postgresql://postgres@/new?host=one%2Ctwo&port=5432%2C5432"),
        ({"postgres_host": "/run/postgresql"}, "postgresql://postgres@/new?host=%2Frun%2Fpostgresql&port=5432"),
        (
            {"postgres_host": "h", "postgres_port": 6000, "postgres_user": "me@x", "postgres_password": "a/b:c"},
            "postgresql://me%40x:a%2Fb%3Ac@h:6000/new",
        ),
        ({"postgres_host": "ignored", "database_url": "postgresql://h/old"}, "postgresql://h/new"),
    ],
)
def test_the_url_of_each_database_is_made_from_what_was_given(given: dict[str, object], expected: str) -> None:
    settings = load_settings(**given)
    assert settings.has_external_database
    assert settings.external_database_url("new") == expected


@pytest.mark.parametrize("name", ["database_url", "mlflow_tracking_uri"])
def test_an_address_of_postgres_that_cannot_work_is_refused_at_the_start(name: str) -> None:
    assert "'pgbouncer', which libpq does not know" in refusal(**{name: "postgres://u@h/d?pgbouncer=true"})


def test_mlflow_gets_an_address_of_postgres_in_its_own_words() -> None:
    settings = load_settings(mlflow_tracking_uri="postgres://u:p@one,two/mlflow")
    assert settings.mlflow_tracking_uri == "postgresql+psycopg2://u:p@/mlflow?host=one%2Ctwo&port=%2C"
    assert load_settings(mlflow_tracking_uri="http://mlflow:5000").mlflow_tracking_uri == "http://mlflow:5000"


def test_the_ticks_of_the_budget_follow_from_interval_and_days() -> None:
    assert load_settings().ticks_per_budget() == 90 * 24 * 12
    assert load_settings(monitoring_interval=60, false_alarm_budget_days=1).ticks_per_budget() == 24 * 60


@pytest.mark.parametrize("name", sorted(FORMER_NAMES))
def test_a_setting_still_counts_under_its_former_name_and_its_present_name_wins(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FORMER_NAMES[name].upper(), "31")
    assert getattr(load_settings(), name) == 31
    assert settings_sources(load_settings())[name] == "environment"
    monkeypatch.setenv(name.upper(), "32")
    assert getattr(load_settings(), name) == 32
    assert getattr(load_settings(**{name: 33}), name) == 33
