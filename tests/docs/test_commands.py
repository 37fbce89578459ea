"""Every command that the README and the documentation show is run, or, where that would take minutes or another machine, checked
to exist with the options shown. A command that fits no rule here fails the test of its page."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import httpx
import psycopg
import pytest
import typer

from selfheal.adapters.postgres.store import server_url
from selfheal.cli import app
from selfheal.settings import Settings, load_settings
from tests.docs.conftest import House
from tests.docs.pages import PAGES, SHELL, Block, Command, blocks, codes, commands, fenced, inline_commands, table
from tests.processes import REPOSITORY
from tests.waiting import eventually

API = "http://127.0.0.1:8000"
RUNBOOK, API_PAGE = "docs/runbook.md", "docs/api.md"

RUN = {
    "alerts": (),
    "api-key": (),
    "check-data": (),
    "config": (),
    "dagster-home": (),
    "history": (),
    "simulate": ("--rows", "20", "--rate", "500", "--label-delay", "0.1"),
    "status": (),
    "verify": (),
    "worth-labelling": (),
}
"""Commands of ours that are run as they stand, with what is added to make them short."""

TOO_LONG_OR_TOO_DEEP = {
    "backup": "run below, with the runbook's restore",
    "bootstrap": "trains for seconds; tests/test_end_to_end.py runs it",
    "check-contract": "needs a contract of the reader's own; tests/test_bring_your_own_model.py",
    "dagster": "what its arguments say; tests/cli/test_single_process.py",
    "demo": "two minutes; tests/test_end_to_end.py runs it",
    "maintain": "starts Dagster; tests/selfheal_assets/test_maintenance.py",
    "migrate": "starts Dagster and MLflow; tests/cli/test_schemas.py",
    "postgres": "what its arguments say; tests/adapters/postgres/test_client_tools.py",
    "promote": "names a version that only the reader has; tests/cli/test_cli.py",
    "replay": "trains models for minutes; tests/cli/test_replaying.py",
    "replay-journal": "reads the whole journal; tests/cli/test_cli.py",
    "report": "imports Evidently for seconds; tests/services/reports/test_writer.py",
    "reproduce": "trains; tests/cli/test_cli.py",
    "restore": "run below, after the runbook's backup",
    "retrain": "trains; tests/cli/test_cli.py",
    "rollback": "names a version that only the reader has; tests/cli/test_cli.py",
    "up": "runs until Ctrl-C; tests/test_end_to_end.py runs it",
}
"""Commands of ours whose options are only parsed, and why."""

ELSEWHERE = {
    "docker": "needs an engine; `make containers`",
    "helm": "tests/deploy/test_helm.py renders the chart",
    "kubectl": "needs a cluster",
    "dagster": "tests/test_end_to_end.py runs `dagster dev`",
    ".venv/bin/dagster": "as above",
    "kaggle": "another host, with the reader's account",
    "pre-commit": "changes the reader's clone; its configuration is run by CI",
    ".venv/bin/pre-commit": "as above",
    "git": "changes the reader's clone",
}
"""Programs of others that are not run, and why."""

NOT_COMMANDS = (
    "request -> security",
    "POST /predict -> journal",
    "POST /labels -> journal",
    "GATE_LEVEL x",
    "w = the one",
    "GET /monitoring/",
    "POST /monitoring/alerts/",
)
"""How blocks, or lines of them, begin that are formulas, pictures or requests."""

SUBSTITUTION = re.compile(r"\$\(([^)]+)\)")
RUN_BY_ITS_OWN_TEST = {"docs/bring_your_own_model.md": "tests/test_bring_your_own_model.py"}
"""Pages that live through another use case; here their commands are only parsed."""

PLACEHOLDERS = {"ID": "0198f0f0-5c1e-7000-8000-000000000001", "HASH": "0" * 64}


CURL = argparse.ArgumentParser("curl")
CURL.add_argument("url")
CURL.add_argument("-s", action="store_true")
CURL.add_argument("-X", dest="method")
CURL.add_argument("-d", dest="data")
CURL.add_argument("-H", dest="headers", action="append", default=[])


def shell_commands(page: str) -> Iterator[Command]:
    for block in blocks(page):
        if block.language in SHELL and not block.text.startswith(NOT_COMMANDS):
            kept = "\n".join("" if line.startswith(NOT_COMMANDS) else line for line in block.text.splitlines())
            yield from commands(Block(block.page, block.line, block.language, kept))


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_runs_or_exists(page: str, house: House) -> None:
    is_run_here = page not in RUN_BY_ITS_OWN_TEST
    assert is_run_here or (REPOSITORY / RUN_BY_ITS_OWN_TEST[page]).exists()
    for command in shell_commands(page):
        try:
            try_out(command, house, is_run_here=is_run_here)
        except (Exception, SystemExit) as error:
            raise AssertionError(f"{command}\n{error}") from error


@pytest.mark.parametrize("page", PAGES)
def test_every_command_in_a_sentence_exists(page: str) -> None:
    for command in inline_commands(page, ("selfheal", "make", "python")):
        try:
            check_options(command)
        except (Exception, SystemExit) as error:
            raise AssertionError(f"{command}\n{error}") from error


def try_out(command: Command, house: House, *, is_run_here: bool) -> None:
    """By the program that the command calls; environment variables before it must be settings."""
    for inner in SUBSTITUTION.findall(command.text):
        check_options(Command(command.page, command.line, inner))
    settings, words = split_environment(shlex.split(SUBSTITUTION.sub("SUBSTITUTED", command.text), comments=True))
    program = words[0].removeprefix(".venv/bin/") if words else None
    if program is None:
        load_settings(**{name.lower(): value for name, value in settings.items()})
    elif program == "curl" and is_run_here:
        answer = send(words[1:], house.url)
        assert answer.is_success or command.page == API_PAGE, answer.text  # which shows errors, compared below
    elif program == "selfheal" and is_run_here:
        run_ours(words[1:], house)
    elif program in {"curl", "selfheal", "make", "python"}:
        check_options(command)
    else:
        assert words[0] in ELSEWHERE, f"{words[0]} is not known to this test"
    unknown = {name for name in settings if name.lower() not in Settings.model_fields} - {"PGOPTIONS", "DAGSTER_HOME"}
    assert not unknown, f"{unknown} are no settings"


def split_environment(words: list[str]) -> tuple[dict[str, str], list[str]]:
    settings: dict[str, str] = {}
    while words and (match := re.fullmatch(r"([A-Z_]+)=(.*)", words[0], re.DOTALL)):
        settings[match[1]] = match[2]
        words = words[1:]
    return settings, words


def run_ours(words: list[str], house: House) -> None:
    """Runs a command of ours; one on an alert or hash that only the reader has is parsed."""
    words = [PLACEHOLDERS.get(word, word) for word in (word.strip("[]") for word in words)]
    command, arguments = find_ours(words)
    if words[0] in TOO_LONG_OR_TOO_DEEP or set(words) & set(PLACEHOLDERS.values()):
        command.make_context("selfheal", arguments).close()
        return
    assert words[0] in RUN or words[0].startswith("--"), f"`selfheal {words[0]}` is not known to this test"
    result = house.selfheal(*words, *RUN.get(words[0], ()))
    assert result.exit_code == 0, result.output


def find_ours(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the words call, and its arguments.

    Raises:
        LookupError: if there is none.
    """
    command, rest = typer.main.get_command(app), list(words)
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]  # type: ignore[attr-defined]
    if rest and not rest[0].startswith("-") and hasattr(command, "commands"):
        raise LookupError(f"there is no command `selfheal {' '.join(words)}`")
    return command, rest


def check_options(command: Command) -> None:
    """That the command exists with its options; in a sentence values may be left out."""
    _, words = split_environment(command.words)
    words[0] = words[0].removeprefix(".venv/bin/")
    if words[0] == "make":
        check_target(*words[1:])
    elif words[0] == "python":
        assert words[1] == "-m", "only modules are shown"
        check_module(words[2], words[3:])
    elif words[0] == "curl":
        CURL.parse_args(words[1:])
    else:
        check_our_options(words[1:])


@cache
def check_target(*arguments: str) -> None:
    python = f"PYTHON={sys.executable}"  # or make would look for one
    subprocess.run(["make", "-n", python, *arguments], cwd=REPOSITORY, check=True, capture_output=True)


def check_our_options(words: list[str]) -> None:
    command, arguments = find_ours([word.strip("[]") for word in words])
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    if command.name != "postgres":  # whose options are those of other programs
        assert {word for word in arguments if word.startswith("-")} - known - {"--help"} == set()


def check_module(module: str, arguments: list[str]) -> None:
    """A benchmark: that it is there and takes the options."""
    if module in {"pytest", "pip"}:
        return
    place = REPOSITORY / module.replace(".", "/")
    path = place / "__main__.py" if place.is_dir() else place.with_suffix(".py")
    assert path.exists(), f"there is no {path}"
    source = path.read_text()
    for option in (word.removeprefix("--") for word in arguments if word.startswith("--")):
        parameter = option.replace("-", "_")
        assert f'"--{option}"' in source or f"    {parameter}: Annotated[" in source, f"{module} has no --{option}"


def send(words: list[str], url: str) -> httpx.Response:
    """What curl would send, to the platform at `url`. Fails on an option that it does not know."""
    given = CURL.parse_args(words)
    assert given.url.startswith(API), f"{given.url} is not our API"
    headers = dict(header.split(": ", 1) for header in given.headers)
    method = given.method or ("GET" if given.data is None else "POST")
    answer = httpx.request(method, given.url.replace(API, url), headers=headers, content=given.data, timeout=30)
    assert answer.status_code < 500, answer.text
    return answer


# The answers shown


def examples() -> list[tuple[Command, dict[str, Any]]]:
    """Each request of docs/api.md that is followed by its answer."""
    found = []
    page = blocks(API_PAGE)
    for asked, answered in pairwise(page):
        if answered.language == "json":
            (command,) = commands(asked)
            found.append((command, json.loads(answered.text)))
    return found


def test_an_answer_of_the_api_page_is_what_the_service_answers(house: House) -> None:
    shown = examples()
    assert len(shown) >= 6
    for command, example in shown:
        body = send(command.words[1:], house.url).json()
        compare(example, body, str(command), is_problem="detail" in example)


def compare(shown: Any, answered: Any, place: str, *, is_problem: bool) -> None:
    """Same fields and same types, item by item; problem documents and messages word for word."""
    if isinstance(shown, dict):
        assert isinstance(answered, dict), place
        assert list(shown) == [name for name in answered if name in shown], place
        assert set(shown) == set(answered), place
        for name, value in shown.items():
            compare(value, answered[name], f"{place} {name}", is_problem=is_problem or name == "errors")
    elif isinstance(shown, list):
        assert len(shown) <= len(answered), place
        for number, value in enumerate(shown):
            compare(value, answered[number], f"{place} {number}", is_problem=is_problem)
    else:
        assert kind_of(shown) == kind_of(answered), place
        assert not is_problem or shown == answered, place


def kind_of(value: Any) -> str:
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def test_the_client_of_the_api_page_scores_and_may_be_sent_twice(house: House) -> None:
    (source,) = fenced(API_PAGE, "python")
    names: dict[str, Any] = {}
    exec(source.replace(API, house.url), names)
    (scored, *_), _ = zip(*examples(), strict=True)
    row = json.loads(scored.words[scored.words.index("-d") + 1])
    del row["prediction_id"]
    first = names["score"](row)
    again = names["score"](row | {"prediction_id": first["prediction_id"], "request_source": "loan-desk"})
    assert again == first
    names["client"].close()


def test_the_runbook_lists_every_metric_of_the_service(house: House) -> None:
    page = house.api.client.get("/metrics").text
    ours = {line.split()[2] for line in page.splitlines() if line.startswith("# TYPE selfheal_")}
    assert {codes(row[0])[0] for row in table(RUNBOOK, "metric")} == ours


# Backup and restore: last, because they take the platform away


def test_the_backup_of_the_runbook_brings_everything_back(house: House) -> None:
    """The machine is lost, but for a backup and a newer copy of the journal. `selfheal verify` ends the restore."""
    (backup,), (restore,) = (list(commands(block)) for block in blocks(RUNBOOK) if block.language == "bash")
    eventually(lambda: house.api.client.get("/health").json()["journal_lag_bytes"] == 0, "the journal is copied", 20)
    run_as_written(backup, house)
    backed_up = count_rows()
    house.selfheal("simulate", "--rows", "30", "--rate", "500", "--label-delay", "0.1")
    house.stop()  # which copies the end of the journal
    shutil.copytree(house.folder / "data/audit", house.folder / "newer")
    before = count_rows()
    assert before == (backed_up[0] + 30, backed_up[1] + 30)
    house.stop()
    shutil.rmtree(house.folder / "data")

    shutil.copytree(house.folder / "newer", house.folder / "data/audit")
    run_as_written(restore, house)
    assert count_rows() == before


def run_as_written(command: Command, house: House) -> None:
    result = house.selfheal(*command.words[1:])
    assert result.exit_code == 0, f"{command}\n{result.output}"


def count_rows() -> tuple[int, int]:
    """Predictions and labels in Postgres."""
    query = "SELECT (SELECT count(*) FROM prediction_logs), (SELECT count(*) FROM label_store)"
    url = server_url(load_settings(), load_settings().mlops_db_name)
    with psycopg.connect(url) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return row[0], row[1]
