"""The examples in docstrings are run, so that they stay true."""

from __future__ import annotations

import doctest
import importlib
import itertools
import pkgutil

import selfheal
import selfheal_assets

EXAMPLES_EXPECTED_IN = {
    "selfheal.domain.monitoring.shift",
    "selfheal.domain.retraining.evidence",
    "selfheal.domain.probation",
}


def test_every_example_gives_what_it_says() -> None:
    with_examples: set[str] = set()
    ours = itertools.chain.from_iterable(
        pkgutil.walk_packages(package.__path__, f"{package.__name__}.") for package in (selfheal, selfheal_assets)
    )
    for found in ours:
        if found.name.startswith("selfheal.adapters.postgres.migrations") or found.name.endswith(".__main__"):
            continue  # run by alembic; runs the command line, a job
        module = importlib.import_module(found.name)
        failed, attempted = doctest.testmod(module)
        assert failed == 0, found.name
        if attempted:
            with_examples.add(found.name)
    assert with_examples >= EXAMPLES_EXPECTED_IN
