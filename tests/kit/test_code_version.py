"""The code version changes with every file that may change a decision."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import selfheal
from selfheal.domain.retraining import gates
from selfheal.kit.code_version import PACKAGE, code_version, digest_of_code
from tests.processes import REPOSITORY

SHALLOW, DEEP = "settings.py", str(Path(gates.__file__).relative_to(PACKAGE))


@pytest.mark.parametrize("changed", [SHALLOW, DEEP])
def test_a_change_in_any_module_of_the_package_is_another_version(changed: str, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(PACKAGE, tmp_path / "selfheal"))
    assert code_version().endswith(digest_of_code(copy)[:12])
    with (copy / changed).open("a") as file:
        file.write("# another rule\n")
    assert not code_version().endswith(digest_of_code(copy)[:12])


def test_the_whole_package_is_covered() -> None:
    assert selfheal.__file__ is not None
    assert Path(selfheal.__file__).parent == PACKAGE == REPOSITORY / "selfheal"
