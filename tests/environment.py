"""Control over the environment that settings are read from."""

from __future__ import annotations

import os

import pytest

from selfheal.kit.secret_files import SUFFIX
from selfheal.settings import Settings


def forget_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting in the environment for the rest of the test: MLflow leaves its tracking URI there, for example."""
    for name in list(os.environ):
        if name.lower().removesuffix(SUFFIX) in Settings.model_fields:
            monkeypatch.delenv(name)
