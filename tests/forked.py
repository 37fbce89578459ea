"""Processes forked from one that has imported everything: real ones, without seconds of imports each."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext

PRELOADED = [
    "mlflow.sklearn",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "selfheal.services.platform",
    "selfheal.services.promotion.going_live",
    "skops.io",
    "sklearn.linear_model",
    "tests.toy_use_case",
]


def forking() -> ForkServerContext:
    """The server that forks is one for the whole session: it ends with this process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context
