"""What a developer meets first works: `make help`, the devcontainer, templates; and Markdown has one width."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from selfheal.settings import Settings
from tests.docs.pages import FENCE, PAGES, text_of
from tests.processes import REPOSITORY

LINE_WIDTH = 100
MAKEFILE = (REPOSITORY / "Makefile").read_text()


def devcontainer() -> dict[str, Any]:
    container: dict[str, Any] = json.loads((REPOSITORY / ".devcontainer/devcontainer.json").read_text())
    return container


def test_make_help_lists_every_target_aligned_and_within_a_terminal() -> None:
    lines = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    phony = re.search(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    assert phony is not None
    assert [line.split()[1] for line in lines] == [name for name in phony[1].split() if name]
    assert len({re.match(r"  make \S+ +", line).end() for line in lines}) == 1  # type: ignore[union-attr]
    assert [line for line in lines if len(line) > 120] == []


def test_the_devcontainer_has_what_ci_needs() -> None:
    container = devcontainer()
    image = re.search(r"python:3\.(\d+)", container["image"])
    assert image is not None
    assert 11 <= int(image[1]) < 14
    created, ci = container["onCreateCommand"], (REPOSITORY / ".ci/run").read_text()
    (packages,) = re.findall(r"apt-get install -qq --yes --no-install-recommends (.+)", ci)
    assert f"apt-get install -qq --yes --no-install-recommends {packages}" in created
    assert "make .venv/.dev" in created
    exported = dict(re.findall(r"^export (\w+)=(\S+)$", ci, re.MULTILINE))
    assert container["containerEnv"] == exported


def test_the_devcontainer_forwards_the_ports_that_up_listens_on() -> None:
    ports = [Settings.model_fields[name].default for name in ("api_port", "dagster_port", "mlflow_port")]
    container = devcontainer()
    assert container["forwardPorts"] == ports
    assert sorted(container["portsAttributes"]) == sorted(map(str, ports))


@pytest.mark.parametrize("name", ["bug", "feature_request"])
def test_an_issue_template_is_a_form_that_asks_for_something(name: str) -> None:
    form = yaml.safe_load((REPOSITORY / f".github/ISSUE_TEMPLATE/{name}.yml").read_text())
    assert {"name", "description", "body"} <= set(form)
    ids = [field["id"] for field in form["body"]]
    assert len(ids) == len(set(ids))
    assert any(field.get("validations", {}).get("required") for field in form["body"])
    assert all(field["attributes"]["label"] for field in form["body"])


def test_the_requirements_of_make_help_and_contributing_agree_on_python() -> None:
    wanted = re.search(r"^WANTED := (.+)$", MAKEFILE, re.MULTILINE)
    assert wanted is not None
    contributing = " ".join((REPOSITORY / "CONTRIBUTING.md").read_text().split())
    assert wanted[1] in contributing
    assert wanted[1] in " ".join((REPOSITORY / "README.md").read_text().split())


def prose_lines(page: str) -> Iterator[tuple[int, str]]:
    """The lines of a page that can be wrapped: neither code, nor a row of a table, nor a picture."""
    is_code = False
    for number, line in enumerate(text_of(page).splitlines(), 1):
        is_code ^= bool(FENCE.match(line))
        if not is_code and not line.startswith(("    ", "|", "![", "```")):
            yield number, line


@pytest.mark.parametrize("page", [*PAGES, ".github/PULL_REQUEST_TEMPLATE.md"])
def test_markdown_wraps_at_one_width(page: str) -> None:
    """A link or a span of code that is longer by itself may stand on a line of its own."""
    for number, line in prose_lines(page):
        one_word = re.sub(r"\[[^\]]*\]\([^)]*\)|`[^`]*`", "x", line.strip())
        assert len(line) <= LINE_WIDTH or " " not in re.sub(r"^([-*]|\d+\.) ", "", one_word), f"{page}:{number}: {line}"
