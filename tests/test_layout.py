"""The layout of tests mirrors that of the source, so that whoever changes a module knows what to run and where to add."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import REPOSITORY

PACKAGES = ("selfheal", "selfheal_assets", "serving")

ELSEWHERE: dict[str, str] = {
    "selfheal.adapters.postgres.repositories": "tests/services/test_repositories.py",
    "selfheal.__main__": "tests/cli/test_cli.py",
    "selfheal_assets.job_names": "tests/selfheal_assets/test_assets.py",
    "selfheal.kit.serialization": "tests/domain/records/test_records.py",
    "selfheal.domain.default_estimator": "tests/test_bring_your_own_model.py",
    "selfheal.domain.model.requirements": "tests/adapters/test_mlflow_registry.py",
    "selfheal.services.promotion.history": "tests/cli/test_cli.py",
    "selfheal.simulate.observer": "tests/test_end_to_end.py",
    "selfheal.adapters.postgres.journal_audit": "tests/services/verification/test_verification.py",
    "selfheal.adapters.postgres.probations": "tests/domain/test_probation.py",
    "selfheal.adapters.postgres.retention": "tests/services/test_maintenance.py",
    "selfheal_assets.__main__": "tests/test_end_to_end.py",
    "serving.schemas.label_quarantines": "tests/serving/routes/test_label_quarantines.py",
    "selfheal_assets.schedules": "tests/selfheal_assets/test_assets.py",
    "serving.security.report_responses": "tests/serving/routes/test_reports.py",
    "serving.database.command_pool": "tests/serving/routes/test_promotions.py",
    "serving.observability.distributions": "tests/serving/routes/test_overview.py",
    "serving.observability.overview": "tests/serving/routes/test_overview.py",
    "serving.routes.dashboard": "tests/serving/dashboard/test_files.py",
    "serving.routes.labels": "tests/serving/ingest/test_labels.py",
    "serving.routes.live": "tests/serving/observability/test_live.py",
    "serving.routes.metrics": "tests/serving/observability/test_metrics.py",
    "serving.scoring.request_parser": "tests/serving/schemas/test_requests.py",
    "serving.schemas.dashboard": "tests/serving/routes/test_overview.py",
    "serving.schemas.open_inference": "tests/serving/protocols/test_open_inference.py",
    "serving.schemas.mlflow_scoring": "tests/serving/protocols/test_mlflow_scoring.py",
    "serving.schemas.responses": "tests/serving/test_schemathesis.py",
}
"""Modules whose tests are not beside their neighbours': where they are."""


def modules() -> Iterator[Path]:
    for package in PACKAGES:
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            if path.name != "__init__.py" and "migrations" not in path.parts:
                yield path.relative_to(REPOSITORY)


def dotted(module: Path) -> str:
    return ".".join(module.with_suffix("").parts)


def folder_of_tests(module: Path) -> Path:
    """`selfheal/adapters/postgres/model_versions.py` -> `tests/store`; the other packages keep their name."""
    parts = module.parent.parts[1:] if module.parts[0] == "selfheal" else module.parent.parts
    return REPOSITORY.joinpath("tests", *parts)


def is_named_in(folder: Path, module: Path) -> bool:
    """Whether the tests of the module's package import it, or are one file for the whole package."""
    if folder.with_name(f"test_{folder.name}.py").exists() or (folder / f"test_{folder.name}.py").exists():
        return True
    files = [*folder.rglob("test_*.py"), *folder.glob("conftest.py")]
    package, _, name = dotted(module).rpartition(".")
    ways = (dotted(module), f"from {package} import {name}", f"-m {package}")
    return any(way in path.read_text() for path in files for way in ways)


@pytest.mark.parametrize("module", list(modules()), ids=dotted)
def test_the_tests_of_a_module_are_where_one_looks_for_them(module: Path) -> None:
    folder = folder_of_tests(module)
    has_own_file = (folder / f"test_{module.stem}.py").exists()
    if dotted(module) in ELSEWHERE:
        assert not has_own_file, f"{dotted(module)} has a file of tests; take it out of ELSEWHERE"
        assert (REPOSITORY / ELSEWHERE[dotted(module)]).exists()
        return
    assert has_own_file or is_named_in(folder, module), (
        f"no test in {folder.relative_to(REPOSITORY)} imports {dotted(module)}; write test_{module.stem}.py there"
    )


def test_no_exception_is_left_of_a_module_that_is_gone() -> None:
    assert set(ELSEWHERE) - {dotted(module) for module in modules()} == set()
