"""From a file as it is found to a served version: one report, its settings, a rehearsal and a bootstrap, nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from selfheal.adapters.postgres import decisions
from selfheal.adapters.postgres.model_versions import production_version
from selfheal.cli import app
from selfheal.domain.records import GateStatus
from selfheal.kit.errors import UnfitFileError
from selfheal.services.platform import open_platform
from selfheal.settings import Settings, load_settings
from selfheal.simulate.demo import settings_environment
from tests.docs.conftest import bootstrap
from tests.field_files import FILES

WORDS_OF_LIBRARIES = re.compile(
    r"Traceback|TypeError|ValueError|codec|dtype|pandas|pydantic|Input should be|Value error"
)


@dataclass
class FieldFile:
    """A file of one kind, and the settings of a platform for its contract."""

    path: Path
    module: Any
    run: Callable[..., Result]

    def set(self, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in settings.items():
            monkeypatch.setenv(name, value)


@pytest.fixture(params=sorted(FILES))
def field_file(
    request: pytest.FixtureRequest, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FieldFile]:
    module = FILES[request.param]
    path = tmp_path / f"{request.param}.csv"
    module.write(path)
    monkeypatch.chdir(tmp_path)
    for name, value in settings_environment(settings).items():
        monkeypatch.setenv(name, value)
    for name, value in {"USE_CASE": f"{module.__name__}:contract", "DATA": str(path), "MIN_AUC": "0.6"}.items():
        monkeypatch.setenv(name, value)
    yield FieldFile(path, module, lambda *words: CliRunner().invoke(app, list(words)))


@pytest.mark.integration
def test_one_report_and_its_settings_lead_to_a_served_version(
    field_file: FieldFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = field_file.run("check-data", "--json")
    assert found.exit_code == 1
    report = json.loads(found.output)
    assert_every_column_is_named(field_file, report)
    refused = field_file.run("bootstrap")
    assert isinstance(refused.exception, UnfitFileError)
    for finding in report["findings"]:
        if finding["level"] == "problem":
            assert finding["text"] in str(refused.exception)
            assert finding["remedy"]
    field_file.set(report["settings"], monkeypatch)
    valid = field_file.run("check-data")
    assert valid.exit_code == 0, valid.output
    rehearsed = field_file.run("check-contract")
    assert rehearsed.exit_code == 0, rehearsed.output
    platform = open_platform(load_settings())
    try:
        bootstrap(platform, datetime.now(UTC))
        assert production_version(platform.store) is not None
        (verdict,) = decisions.recent(platform.store, 1)
    finally:
        platform.close()
    told = " ".join(rehearsed.output.split())
    for gate in verdict.gates:
        assert gate.status is GateStatus.NOT_APPLICABLE or f"gate {gate.name}: {gate.sentence}" in told
    for said in (found.output, str(refused.exception), valid.output, rehearsed.output):
        assert not WORDS_OF_LIBRARIES.search(said)


def assert_every_column_is_named(field_file: FieldFile, report: dict[str, Any]) -> None:
    named = {name for finding in report["findings"] for name in finding["columns"]}
    features = field_file.module.contract.inputs
    for feature in features:
        assert named & {feature.name, *feature.aliases}
    ignored = report["settings"]["DATA_IGNORED_COLUMNS"]
    assert all(name in named for name in ignored.split(","))
    assert len(named) > len(features)
