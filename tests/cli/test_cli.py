"""The command line: what it prints, and that errors are one line with a remedy."""

from __future__ import annotations

import getpass
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from selfheal.adapters.postgres import decisions
from selfheal.adapters.postgres.alerts import open_or_update_alert, resolve_alert
from selfheal.cli import app
from selfheal.cli.versions import outcome_of
from selfheal.domain.records import Action, Alert, Reproduction, Severity
from selfheal.kit.api_keys import ApiKey, Scope, key_digest, parse_api_keys
from selfheal.kit.errors import ConfigurationError, InvalidDataError
from selfheal.services.platform import open_platform
from selfheal.services.promotion.going_live import stage
from selfheal.settings import Settings
from selfheal.simulate.demo import settings_environment
from tests.candidates import passed, twin_of_champion
from tests.processes import REPOSITORY, selfheal
from tests.times import T0
from tests.toy_use_case import contract
from tests.traffic import serve, toy_rows

COMMANDS = [
    "up",
    "demo",
    "bootstrap",
    "status",
    "alerts",
    "report",
    "simulate",
    "retrain",
    "reproduce",
    "promote",
    "rollback",
    "declarations",
    "declare",
    "verify",
    "history",
    "replay",
    "replay-journal",
    "backup",
    "restore",
    "migrate",
    "check-data",
    "check-contract",
    "export-data",
    "config",
    "api-key",
    "dagster-home",
]


@pytest.fixture
def cli(make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    """Runs commands on a bootstrapped platform."""
    settings = make_settings()
    for name, value in settings_environment(settings).items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments), catch_exceptions=True)

    run.settings = settings  # type: ignore[attr-defined]
    return run


def test_a_bootstrap_from_too_few_rows_of_a_class_says_so_before_anything_starts(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It would have failed in Dagster with a critical alert, after the first baseline, which never changes, was written."""
    rows = toy_rows(500).assign(true_label=[1] * 250 + [0] * 250).rename(columns={"true_label": contract.label.name})
    rows.to_csv(tmp_path / "rows.csv", index=False)
    for name, value in settings_environment(settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DATA", str(tmp_path / "rows.csv"))
    started: list[object] = []
    monkeypatch.setattr("selfheal.cli.supervisor.run_job", lambda *arguments: started.append(arguments))
    result = CliRunner().invoke(app, ["bootstrap"])
    assert (result.exit_code, started) == (1, [])
    assert isinstance(result.exception, InvalidDataError)
    assert "the 200 rows to be judged on (the newest) need 10 more of class 1 (there are 0)" in str(result.exception)
    assert str(result.exception).endswith("add labelled rows (500 now)")


def test_help_lists_every_command() -> None:
    output = CliRunner().invoke(app, ["--help"]).output
    for command in COMMANDS:
        assert command in output


def test_config_shows_source_and_value_and_hides_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIN_AUC", "0.8")
    monkeypatch.setenv("POSTGRES_PASSWORD", "hunter2")
    output = CliRunner().invoke(app, ["config", "--json"]).output
    rows = {row["name"]: row for row in json.loads(output)}
    assert (rows["MIN_AUC"]["value"], rows["MIN_AUC"]["source"]) == ("0.8", "environment")
    assert rows["MIN_RECALL"]["source"] == "default"
    assert "hunter2" not in output


def test_a_wrong_setting_is_one_line_with_name_value_and_what_is_allowed(tmp_path: Path) -> None:
    environment = {"MIN_AUC": "1.5", "PATH": "/usr/bin:/bin", "DATA_DIR": str(tmp_path)}
    done = subprocess.run(
        selfheal("config"), env=environment, capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert "MIN_AUC=1.5" in line
    assert "less than or equal to 1" in line


def test_an_api_key_is_shown_with_the_entry_that_lets_it_in() -> None:
    made = json.loads(
        CliRunner().invoke(app, ["api-key", "--name", "scorer", "--scopes", "score,label", "--json"]).output
    )
    assert parse_api_keys(made["entry"]) == (
        ApiKey("scorer", frozenset({Scope.SCORE, Scope.LABEL}), key_digest(made["key"])),
    )
    told = CliRunner().invoke(app, ["api-key", "--name", "scorer", "--scopes", "read"]).output.splitlines()
    assert parse_api_keys(told[3])[0].digest == key_digest(told[1])


@pytest.mark.parametrize(
    ("name", "scopes", "told"), [("scorer", "write", "'write'"), ("two words", "read", "two words")]
)
def test_an_api_key_that_would_not_be_let_in_is_not_made(name: str, scopes: str, told: str) -> None:
    result = CliRunner().invoke(app, ["api-key", "--name", name, "--scopes", scopes])
    assert isinstance(result.exception, ConfigurationError)
    assert told in str(result.exception)
    assert "selfheal_" not in result.output


def test_check_data_names_file_line_column_and_value(tmp_path: Path) -> None:
    csv = tmp_path / "machines.csv"
    csv.write_text("temperature_c,load_ratio,restarts,failed\n60,0.5,1,0\n61,abc,1,0\n")
    environment = {"USE_CASE": "tests.toy_use_case:contract", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        selfheal("check-data", str(csv)), env=environment, capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    for part in (str(csv), "line 3", "'load_ratio'", "'abc'"):
        assert part in done.stdout
    assert list(tmp_path.iterdir()) == [csv]


@pytest.mark.integration
def test_status_says_in_one_sentence_how_it_is(cli: Callable[..., Result]) -> None:
    assert "No monitoring tick has run yet" in cli("status").output
    found = json.loads(cli("status", "--json").output)
    assert found["model"]["version"] == 1
    assert found["latest_tick"] is None


@pytest.mark.integration
def test_reproduce_trains_a_version_again_and_says_whether_it_is_the_same(
    cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    same = cli("reproduce", "1")
    assert same.exit_code == 0, same.output
    assert "is the same to the bit" in " ".join(same.stdout.split())
    monkeypatch.setattr("selfheal.domain.retraining.training.f1_optimal_threshold", lambda labels, probabilities: 0.123)
    other = cli("reproduce", "1", "--json")
    assert other.exit_code == 1
    report = json.loads(other.stdout)
    assert report["is_identical"] is False
    assert any("threshold" in difference and "0.123" in difference for difference in report["differences"])


@pytest.mark.parametrize(
    ("differences", "tolerance", "n_rounded", "sentence"),
    [
        ((), 0.0, 0, "is the same to the bit"),
        (
            (),
            1e-9,
            6,
            "is the same to 1e-09: 6 values differ by less, which is rounding, since not all is as it was then",
        ),
        (("a: 1 and 2",), 0.0, 0, "differs in 1 places"),
        (("a: 1 and 2",), 1e-9, 5, "differs in 1 places by more than 1e-09"),
    ],
)
def test_reproduce_says_to_what_tolerance_a_version_is_the_same(
    differences: tuple[str, ...], tolerance: float, n_rounded: int, sentence: str
) -> None:
    assert outcome_of(Reproduction("m", 1, "run", "d" * 64, differences, (), tolerance, n_rounded)) == sentence


@pytest.mark.integration
def test_verify_finds_an_edited_decision_and_says_so_with_its_exit_code(cli: Callable[..., Result]) -> None:
    clean = cli("verify")
    assert clean.exit_code == 0, clean.output
    assert clean.stdout.strip().endswith("everything agrees")
    settings: Settings = cli.settings  # type: ignore[attr-defined]
    edited = sorted((settings.data_dir / "decisions").glob("*.json"))[0]
    edited.write_text(edited.read_text().replace('"actor": "test"', '"actor": "nobody"'))
    found = cli("verify", "--json")
    assert found.exit_code == 1
    report = json.loads(found.stdout)
    assert report["is_sound"] is False
    assert any(edited.name in one for result in report["results"] for one in result["findings"])
    decision_id = edited.stem.rpartition("-")[2]
    alone = cli("verify", decision_id)
    assert alone.exit_code == 1
    assert "as decided" not in alone.stdout


@pytest.mark.integration
def test_verify_of_one_decision_says_that_it_is_as_decided(cli: Callable[..., Result]) -> None:
    promoted = json.loads(cli("history", "--json").stdout)[0]["decision_id"]
    result = cli("verify", promoted)
    assert result.exit_code == 0, result.output
    assert "as decided" in result.stdout
    assert "there is no decision" in str(cli("verify", "unknown").exception)


@pytest.mark.integration
def test_verify_holds_the_chain_against_a_head_that_was_noted(cli: Callable[..., Result]) -> None:
    head = json.loads(cli("verify", "--verdicts", "0", "--json").stdout)["chain_head"]
    assert cli("verify", "--verdicts", "0", "--expect-head", head).exit_code == 0
    other = cli("verify", "--verdicts", "0", "--expect-head", "f" * 64)
    assert other.exit_code == 1
    assert "the chain was cut" in " ".join(other.stdout.split())


@pytest.mark.integration
def test_what_verify_cannot_look_at_has_an_exit_code_of_its_own(
    cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise ConnectionError("MLflow is away")

    monkeypatch.setattr("selfheal.adapters.mlflow_registry.Registry.stored_model", away)
    result = cli("verify", "--verdicts", "0")
    assert result.exit_code == 3
    assert "not checked: model of version 1: ConnectionError: MLflow is away" in " ".join(result.stdout.split())
    assert "everything agrees" not in result.stdout


@pytest.mark.integration
def test_history_says_what_served_when_and_by_which_decision(cli: Callable[..., Result]) -> None:
    (first,) = json.loads(cli("history", "--json").stdout)
    assert (first["version"], first["action"], first["actor"], first["until"]) == (1, "promote", "test", None)
    assert first["decision_id"] in "".join(cli("history").stdout.replace("│", " ").split())

    before = T0 - timedelta(seconds=1)
    assert "nothing was in production yet" in cli("history", "--at", before.isoformat()).stdout
    assert json.loads(cli("history", "--at", before.isoformat(), "--json").stdout)["live"] is None
    for moment in ("2026-03-02T12:00", "2026-03-02 13:00+01:00"):  # without an offset: UTC
        live = json.loads(cli("history", "--at", moment, "--json").stdout)
        assert (live["at"], live["live"]["version"]) == (str(T0), 1)
    assert "'yesterday' is not a time; write it as" in str(cli("history", "--at", "yesterday").exception)


@pytest.mark.integration
def test_replaying_the_journal_twice_adds_nothing(cli: Callable[..., Result]) -> None:
    platform = open_platform(cli.settings)  # type: ignore[attr-defined]
    serve(platform, toy_rows(30))
    platform.close()
    output = cli("replay-journal").output
    assert "predictions: 30 lines read, 0 rows were missing" in output
    assert "labels: 30 lines read, 0 rows were missing" in output


@pytest.mark.integration
def test_a_rollback_without_a_predecessor_names_the_remedy(cli: Callable[..., Result]) -> None:
    result = cli("rollback", "--reason", "test")
    assert result.exit_code != 0
    assert "name the version to go back to" in str(result.exception)


@pytest.mark.integration
def test_a_column_is_declared_seasonal_by_a_person_with_a_reason(cli: Callable[..., Result]) -> None:
    result = cli("declare", "seasonal", "load_ratio", "--reason", "inventory week")
    assert "load_ratio is declared seasonal from the next tick on" in " ".join(result.output.split())
    platform = open_platform(cli.settings)  # type: ignore[attr-defined]
    (newest,) = decisions.recent(platform.store, 1)
    platform.close()
    assert (newest.action, newest.declared, newest.reason) == (Action.DECLARE, "seasonal:load_ratio", "inventory week")
    assert "there is no column 'nonsense'" in str(cli("declare", "sound", "nonsense", "--reason", "test").exception)
    (listed,) = json.loads(cli("declarations", "--json").output)
    assert (listed["subject"], listed["column"], listed["reason"]) == ("seasonal", "load_ratio", "inventory week")
    assert "load_ratio" in cli("declarations").output
    cli("declare", "not_seasonal", "load_ratio", "--reason", "it is over")
    assert "Declarations: none" in cli("declarations").output
    assert "withdrawn" in cli("declarations", "--all").output


@pytest.mark.integration
def test_a_version_goes_live_and_back_by_hand_with_its_decisions_named(cli: Callable[..., Result]) -> None:
    platform = open_platform(cli.settings)  # type: ignore[attr-defined]
    verdict = passed(platform, twin_of_champion(platform))
    stage(platform, verdict.shadow, verdict.decision, T0)
    promoted = cli("promote", "2", "--force", "--reason", "the auditor wants it")
    returned = cli("rollback", "--to", "1", "--reason", "customers complain")
    assert "Version 2 is in production on probation; it replaced version 1" in " ".join(promoted.output.split())
    assert "Version 1 is in production again; version 2 is not" in " ".join(returned.output.split())
    back, forth = decisions.recent(platform.store, 2)
    assert (forth.action, forth.reason, forth.decision_id in promoted.output) == (
        Action.FORCE_PROMOTE,
        "the auditor wants it",
        True,
    )
    assert (back.action, back.reason, back.decision_id in returned.output) == (
        Action.ROLLBACK,
        "customers complain",
        True,
    )
    assert {back.actor, forth.actor} == {getpass.getuser()}
    platform.close()


@pytest.mark.integration
def test_promoting_by_hand_needs_force(cli: Callable[..., Result]) -> None:
    assert "--force" in cli("promote", "1", "--reason", "test").output


@pytest.mark.integration
def test_alerts_are_listed_and_the_first_to_acknowledge_one_stays(cli: Callable[..., Result]) -> None:
    platform = open_platform(cli.settings)  # type: ignore[attr-defined]
    trouble = Alert("dataset_drift", Severity.CRITICAL, "the [data] set has drifted", {"ratio": 0.6})
    open_or_update_alert(platform.store, "monitoring", 1, trouble, T0)
    platform.close()
    (listed,) = json.loads(cli("alerts", "--json").output)
    assert (listed["kind"], listed["severity"], listed["acknowledged_by"]) == ("dataset_drift", "critical", None)
    output = cli("alerts").output
    assert listed["alert_id"] in output, "to copy from, even on a narrow terminal"
    assert "[data]" in output
    first = cli("alerts", "acknowledge", listed["alert_id"], "--note", "on it")
    assert "is acknowledged by" in first.output
    assert "was already acknowledged by" in cli("alerts", "acknowledge", listed["alert_id"]).output
    assert json.loads(cli("alerts", "--json").output)[0]["acknowledged_note"] == "on it"
    unknown = cli("alerts", "acknowledge", "00000000-0000-0000-0000-000000000000")
    assert "selfheal alerts --all" in str(unknown.exception)


@pytest.mark.integration
def test_resolved_alerts_are_shown_on_request(cli: Callable[..., Result]) -> None:
    platform = open_platform(cli.settings)  # type: ignore[attr-defined]
    open_or_update_alert(platform.store, "serving", None, Alert("journal_lag", Severity.WARNING, "late"), T0)
    resolve_alert(platform.store, "serving", "journal_lag", T0)
    platform.close()
    assert "Open alerts: none" in cli("alerts").output
    assert "resolved 2026-03-02" in cli("alerts", "--all").output


def test_nobody_waits_for_a_library_that_the_help_does_not_need() -> None:
    script = "import sys, selfheal.cli; print(*{m.split('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy = {"numpy", "pandas", "sqlalchemy", "psycopg", "mlflow", "sklearn", "scipy", "httpx", "dagster", "apprise"}
    assert not heavy & set(done.stdout.split())


WITHOUT_JSON = {
    "up": "prints nothing but addresses, and runs until Ctrl-C",
    "demo": "writes its outcome to the file of --json",
    "dagster": "prints what Dagster prints",
    "migrate": "prints one line per schema",
    "dagster-home": "prints one path, for the shell",
    "postgres": "prints what the program prints",
    "start": "becomes the process, whose output it is",
    "probe": "answers with its exit code, and one line",
}


def json_option_of(command: str, *group: str) -> bool:
    return "--json" in CliRunner().invoke(app, [*group, command, "--help"], env={"COLUMNS": "120"}).output


def test_every_command_that_prints_data_prints_json_on_request() -> None:
    names = [str(command.name or command.callback.__name__).replace("_", "-") for command in app.registered_commands]  # type: ignore[union-attr]
    assert {name for name in names if not json_option_of(name)} <= set(WITHOUT_JSON) - {"demo"}
    assert json_option_of("alerts")
    assert json_option_of("acknowledge", "alerts")


@pytest.mark.integration
def test_json_on_stdout_parses_whatever_is_told_on_stderr(
    cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every command with --json but those that other tests here parse: of a platform with two versions and an alert."""
    platform = open_platform(cli.settings)  # type: ignore[attr-defined]
    serve(platform, toy_rows(30))
    verdict = passed(platform, twin_of_champion(platform))
    stage(platform, verdict.shadow, verdict.decision, T0)
    open_or_update_alert(platform.store, "serving", None, Alert("journal_lag", Severity.WARNING, "late"), T0)
    platform.close()
    monkeypatch.setattr(
        "selfheal.cli.supervisor.run_job",
        lambda *_, **__: None,  # jobs print nothing
    )

    def parsed(*arguments: str, exit_code: int = 0) -> Any:
        result = cli(*arguments, "--json")
        assert result.exit_code == exit_code, result.output
        return json.loads(result.stdout)

    assert parsed("bootstrap") == {"version": 1}
    assert parsed("promote", "2", "--force", "--reason", "test")["version"] == 2
    assert parsed("rollback", "--reason", "test")["version"] == 1
    assert parsed("retrain", "--reason", "test") == []
    assert parsed("worth-labelling")["predictions"] == []
    assert parsed("replay-journal")["predictions"]["n_read"] == 30
    assert {row["column"] for row in parsed("check-data")["columns"]} >= {"load_ratio"}
    assert parsed("report", exit_code=1) == {"page": None}
    backed_up = parsed("backup", str(tmp_path / "backup"))
    assert (tmp_path / "backup" / "backup.json").exists()
    assert set(backed_up["databases"].split(", ")) >= {"selfheal", "mlflow"}
    (alert,) = parsed("alerts")
    assert parsed("alerts", "acknowledge", alert["alert_id"])["is_first"] is True
    sent = parsed("simulate", "--rows", "2", "--rate", "100", "--url", "http://127.0.0.1:9", exit_code=1)
    assert (sent["predictions"], sent["failed_requests"]) == (0, 2)


@pytest.mark.integration
def test_without_traffic_a_report_says_so_with_its_exit_code(cli: Callable[..., Result]) -> None:
    result = cli("report")
    assert result.exit_code == 1
    assert "nothing to report on" in " ".join(result.output.split())
