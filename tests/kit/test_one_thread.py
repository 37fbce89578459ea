"""Within the context every library of linear algebra has one thread, those that were loaded later too."""

from __future__ import annotations

import subprocess
import sys

LATER = """
import numpy as np
from threadpoolctl import threadpool_info
from selfheal.kit.one_thread import one_thread

def threads():
    return {info["internal_api"]: info["num_threads"] for info in threadpool_info()}

before = threads()
with one_thread():
    assert set(threads().values()) == {1}, threads()
assert threads() == before
assert "openmp" not in before, before
from sklearn.ensemble import HistGradientBoostingClassifier
after = threads()
assert "openmp" in after, after
with one_thread():
    with one_thread():
        assert set(threads().values()) == {1}, threads()
    assert set(threads().values()) == {1}, threads()
assert threads() == after
"""


def test_a_library_that_was_loaded_later_has_one_thread_too() -> None:
    environment = {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", LATER], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_libraries_are_looked_for_once_while_nothing_is_imported(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    import threadpoolctl

    from selfheal.kit.one_thread import one_thread

    with one_thread():
        pass
    n_looked_for = []
    whole = threadpoolctl.ThreadpoolController
    monkeypatch.setattr(threadpoolctl, "ThreadpoolController", lambda: n_looked_for.append(1) or whole())
    for _ in range(3):
        with one_thread():
            pass
    assert n_looked_for == []
    sys.modules["a_module_that_was_imported"] = sys
    try:
        with one_thread():
            assert n_looked_for == [1]
    finally:
        del sys.modules["a_module_that_was_imported"]
