"""What a shell completes: from a store that answers, bounded; silent and quick from one that does not."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from selfheal.adapters.postgres import completions
from selfheal.adapters.postgres.alerts import open_or_update_alert, resolve_alert
from selfheal.cli import completion
from selfheal.domain.records import Alert, Severity
from selfheal.services.platform import Platform
from selfheal.settings import load_settings
from selfheal.simulate.demo import settings_environment
from tests.environment import forget_settings
from tests.times import T0


def test_registered_versions_are_offered_with_their_stage(platform: Platform) -> None:
    assert completions.versions(platform.settings) == [("1", "Production")]


def test_only_open_alerts_are_offered_and_not_more_than_the_bound(platform: Platform) -> None:
    for version in range(completions.MAX_ROWS + 1):
        open_or_update_alert(platform.store, "serving", version, Alert("journal_lag", Severity.WARNING, "late"), T0)
    offered = completions.open_alerts(platform.settings)
    assert len(offered) == completions.MAX_ROWS
    assert {told for _, told in offered} == {"warning: journal lag"}
    resolve_alert(platform.store, "serving", "journal_lag", T0)
    assert completions.open_alerts(platform.settings) == []


def test_a_server_that_does_not_run_is_not_started(tmp_path: Path) -> None:
    assert completions.versions(load_settings(data_dir=tmp_path / "data")) == []
    assert not (tmp_path / "data").exists()


def test_a_server_that_does_not_answer_offers_nothing_within_its_time() -> None:
    began = time.monotonic()
    assert completions.versions(load_settings(database_url="postgresql://u@127.0.0.1:9/x")) == []
    assert time.monotonic() - began < 2 * completions.CONNECT_TIMEOUT_SECONDS


def test_wrong_settings_offer_nothing_and_say_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forget_settings(monkeypatch)
    monkeypatch.setenv("MIN_AUC", "7")
    assert completion.versions("") == completion.open_alerts("") == completion.scenarios("") == []
    assert capsys.readouterr() == ("", "")


def test_the_shell_is_answered_with_what_begins_as_typed(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from selfheal.cli import main

    for name, value in settings_environment(platform.settings).items():
        monkeypatch.setenv(name, value)
    answers = {}
    for words in ("promote ", "rollback --to ", "reproduce 9", "simulate --scenario over", "demo --scenario c"):
        for name, value in {"_SELFHEAL_COMPLETE": "complete_bash", "COMP_WORDS": f"selfheal {words}"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("COMP_CWORD", str(len(f"selfheal {words}".split(" ")) - 1))
        monkeypatch.setattr(sys, "argv", ["selfheal"])
        with pytest.raises(SystemExit):
            main()
        answers[words] = capsys.readouterr().out.split()
    assert answers == {
        "promote ": ["1"],
        "rollback --to ": ["1"],
        "reproduce 9": [],
        "simulate --scenario over": ["overheating"],
        "demo --scenario c": ["calm"],
    }
