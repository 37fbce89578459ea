"""Arithmetic in one thread: how many threads of BLAS and OpenMP share a sum affects its last bits."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from typing import Any, NamedTuple


class _Known(NamedTuple):
    """The libraries that were found when so many modules had been imported."""

    n_modules: int
    controller: Any


_known = [_Known(-1, None)]


def one_thread() -> AbstractContextManager[Any]:
    """Return a context in which the libraries of linear algebra and OpenMP use one thread.

    To find them takes milliseconds, and a training needs it dozens of times: they are found again only if modules have been
    imported since, which may have loaded others.
    """
    from threadpoolctl import ThreadpoolController

    n_modules = len(sys.modules)
    if _known[0].n_modules != n_modules:
        _known[0] = _Known(n_modules, ThreadpoolController())
    found: AbstractContextManager[Any] = _known[0].controller.limit(limits=1)
    return found
