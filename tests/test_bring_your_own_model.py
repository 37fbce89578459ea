"""The walk of docs/bring_your_own_model.md: a use case in one file of the reader's own, from CSV to promoted model, over the real API.

The page's own code and commands are run, in a folder that holds nothing but what the page puts there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from selfheal.adapters.datasets import load_csv
from selfheal.adapters.postgres import decisions
from selfheal.cli import app
from selfheal.domain.contract import load_contract
from selfheal.domain.records import Action, Trigger, Verdict
from selfheal.kit.errors import ConfigurationError, NoProductionModelError
from selfheal.services.platform import Platform, open_platform
from selfheal.services.promotion.going_live import promote
from selfheal.settings import Settings, load_settings
from selfheal.simulate.demo import settings_environment
from tests import builders
from tests.docs.conftest import bootstrap
from tests.docs.pages import Command, blocks, commands, fenced
from tests.processes import REPOSITORY
from tests.services.steps import decide, retrain, whole_tick
from tests.serving.running import START_PATIENCE_SECONDS, Api, api_in_thread
from tests.waiting import eventually

PAGE = "docs/bring_your_own_model.md"
EXAMPLE = REPOSITORY / "examples" / "health_visits.py"
USE_CASE = "health_visits:contract"
SHORTER = ("--rate", "1000", "--label-delay", "0.1")

Run = Callable[..., Result]


def walk_commands(program: str) -> list[Command]:
    """The page's commands of ours that begin so, in its order."""
    shown = [command for block in blocks(PAGE) if block.language == "" for command in commands(block)]
    return [command for command in shown if command.text.startswith(f"selfheal {program}")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the reader is: the one file, and the CSV that the page's code writes."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(EXAMPLE, tmp_path)
    exec(fenced(PAGE, "python")[0], {})
    return tmp_path


@pytest.fixture
def run(folder: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs commands with the page's `.env`, on databases of the test's own."""
    (folder / ".env").write_text(fenced(PAGE, "ini")[0])
    databases = {"database_url", "mlops_db_name", "mlflow_tracking_uri"}
    environment = settings_environment(settings)
    for name in databases:
        monkeypatch.setenv(name.upper(), environment[name.upper()])
    yield lambda *arguments: CliRunner().invoke(app, list(arguments))


def test_the_page_shows_the_example_as_it_is() -> None:
    assert EXAMPLE.read_text().strip() in [text.strip() for text in fenced(PAGE, "python")]


def test_no_other_file_names_the_examples_features() -> None:
    names = ("log_coinsurance", "log_max_expense", "is_frequent_visitor")
    for package in ("selfheal", "selfheal_assets", "serving"):
        for path in (REPOSITORY / package).rglob("*.py"):
            assert not [name for name in names if name in path.read_text()], path


def test_the_rehearsal_says_what_the_gates_would_and_the_page_sets_the_limit_that_it_names(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for (command,) in (walk_commands("check-data"), walk_commands("check-contract")):
        assert run(*command.words[1:]).exit_code == 0
    monkeypatch.setenv("MIN_AUC", "0.72")
    refused = run(*command.words[1:])
    assert refused.exit_code == 1
    assert "gate auc_roc: AUC-ROC 0.667, 0.72 wanted; find better features, or set MIN_AUC and HARM_" in refused.output


def test_a_bootstrap_that_the_gates_reject_ends_with_the_gate_that_failed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reject(*_: object, **__: object) -> None:
        platform = open_platform(load_settings())
        decisions.append(
            platform.store, builders.decision(model_name="health_visits", reason="AUC-ROC 0.667, 0.72 wanted")
        )
        platform.close()

    monkeypatch.setattr("selfheal.cli.supervisor.run_job", reject)
    result = run("bootstrap")
    assert isinstance(result.exception, NoProductionModelError)
    assert "AUC-ROC 0.667, 0.72 wanted; better features or another limit may help" in str(result.exception)


def test_from_a_csv_to_a_promoted_model(run: Run, folder: Path) -> None:
    settings = load_settings()
    assert settings.use_case == USE_CASE
    platform = open_platform(settings)
    try:
        bootstrap(platform, datetime.now(UTC))
        with api_in_thread(settings) as api:
            send_the_pages_traffic(run, api, platform)
            heal(platform)
            eventually(lambda: api.health()["model_version"] == 2, "the new version answers", START_PATIENCE_SECONDS)
            assert_answers_with_a_reason(api, folder / "health_visits.csv")
        for looking in (*walk_commands("status"), *walk_commands("history")):
            assert run(*looking.words[1:]).exit_code == 0
        check_the_old_rows_as_new_data(run)
    finally:
        platform.close()


def send_the_pages_traffic(run: Run, api: Api, platform: Platform) -> None:
    """Calm traffic is found stable; after the drifted one there is harm to see. Fewer rows than on the page, but of many persons: a
    person has rows of five years, one after the other, and the file does not say whose they are.
    """
    calm, drifted, *_ = walk_commands("simulate")
    for command, rows in ((calm, "500"), (drifted, "1000")):
        sent = run(*command.words[1:], *SHORTER, "--rows", rows, "--url", str(api.client.base_url))
        assert sent.exit_code == 0, sent.output
        wait_for_labels(platform)
        if command is calm:
            assert whole_tick(platform, datetime.now(UTC)).verdict is Verdict.STABLE


def wait_for_labels(platform: Platform) -> None:
    from selfheal.adapters.postgres.predictions import count_labels

    def all_are_copied() -> bool:
        n_predictions, n_labels = count_labels(platform.store)
        return n_predictions == n_labels > 0

    eventually(all_are_copied, "predictions and labels are in Postgres", START_PATIENCE_SECONDS)


def heal(platform: Platform) -> None:
    now = datetime.now(UTC)
    seen = whole_tick(platform, now)
    assert seen.verdict is Verdict.HARMFUL_SHIFT, seen.reasons
    decision = decide(platform, Trigger.DRIFT, now, seen.episode_id)
    assert decision.action is Action.TRAIN, decision.reason
    verdict = retrain(platform, decision, now)
    assert verdict.decision.action is Action.PROMOTE, verdict.decision.reason
    assert promote(platform, verdict, now).version == 2


def check_the_old_rows_as_new_data(run: Run) -> None:
    """What was labelled is a file that the page's next commands take."""
    (command,) = walk_commands("export-data")
    assert run(*command.words[1:]).exit_code == 0
    again = run(*command.words[1:])
    assert isinstance(again.exception, ConfigurationError), "a file that is there is not written over"
    checked = run("check-contract", "--data", command.words[2])
    assert checked.exit_code == 0, checked.output
    assert "1,500 real rows (labelled.csv)" in " ".join(checked.output.split())


def assert_answers_with_a_reason(api: Api, csv: Path) -> None:
    """Under the file's own column names, as the reader's systems send them."""
    first = load_csv(csv, load_contract(USE_CASE)).iloc[0]
    contract = load_contract(USE_CASE)
    body = {
        feature.aliases[0]: int(first[feature.name]) if feature.kind == "int" else float(first[feature.name])
        for feature in contract.inputs
    }
    answer = api.post("/predict?explain=true", body).json()
    assert (answer["model_name"], answer["model_version"]) == ("health_visits", 2)
    assert set(answer["explanation"]["contributions"]) == set(contract.feature_names)
