"""What MLflow reads from the environment, and what it leaves there."""

from __future__ import annotations

import os

import pytest

from selfheal.adapters.mlflow_environment import EXPORTED, unchanged_environment
from selfheal.services.platform import Platform


def test_what_mlflow_exports_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    given, absent, *_ = EXPORTED
    monkeypatch.setenv(given, "ours")
    monkeypatch.delenv(absent, raising=False)
    with unchanged_environment():
        os.environ |= {given: "theirs", absent: "theirs"}
    assert os.environ[given] == "ours"
    assert absent not in os.environ


def test_mlflows_own_pool_leaves_a_demoted_server_soon(platform: Platform) -> None:
    """MLflow pings a connection, and a demoted server answers."""
    from mlflow.environment_variables import MLFLOW_SQLALCHEMYSTORE_POOL_RECYCLE

    platform.registry.stage_tags()
    assert 0 < MLFLOW_SQLALCHEMYSTORE_POOL_RECYCLE.get() <= 60
