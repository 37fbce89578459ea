"""A run has an owner as long as the process that holds its lock lives."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from selfheal_assets.run_owners import RunOwners, write_owner


@pytest.fixture
def owners(tmp_path: Path) -> RunOwners:
    return RunOwners(tmp_path / "owners")


def test_a_claim_lasts_as_long_as_a_process_that_inherited_it(owners: RunOwners) -> None:
    with owners.claim("run") as lock, subprocess.Popen(["sleep", "60"], pass_fds=[lock.fileno()]) as worker:
        write_owner(lock, worker.pid)
        lock.close()
        assert owners.has_owner("run")
        assert owners.pid("run") == worker.pid
        worker.kill()
        worker.wait()
        assert not owners.has_owner("run")
        assert owners.pid("run") is None
        assert owners.is_known("run")


def test_a_run_has_one_owner_at_a_time(owners: RunOwners) -> None:
    with owners.claim("run"), pytest.raises(BlockingIOError):
        owners.claim("run")
    owners.claim("run").close()


def test_a_run_that_nobody_ever_owned_is_unknown(owners: RunOwners) -> None:
    assert owners.known() == set()
    assert not owners.is_known("run")
    assert not owners.has_owner("run")
    assert owners.pid("run") is None
    owners.forget("run")


def test_what_is_forgotten_is_gone(owners: RunOwners) -> None:
    owners.claim("run").close()
    assert owners.known() == {"run"}
    owners.forget("run")
    assert owners.known() == set()
