"""Is the loop right in real worlds? Each world W1 to W22 is rebuilt from data and streams, and judged by stated targets.

    python -m benchmarks.trust --data CSV --stream FILE [--json FILE] [--results FILE] [--world W9 ...] [--quick]

A world is a situation in which a loop goes wrong that is right on independent rows with prompt and random labels: recurring
customers, late and selected labels, poisoned weeks, seasons, old champions. What is measured is always the platform's own
deciding code.

The work of a world is cut into pieces (a deployment, a block of tries), which all processes do together. With `--results` each
finished piece is kept, and a run that is stopped goes on there, with the same code and rows: a full run takes hours. Before a run
and while it goes on, a line says about how long the rest takes.

Belongs here: building worlds, trying often, counting. Does not belong here: any rule of the loop.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

NOT_OF_WORLDS = {"__main__", "figures", "results", "work", "worlds"}


def modules() -> list[ModuleType]:
    """Return the modules that declare worlds (`WORLDS`), by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in NOT_OF_WORLDS)
    return [module for name in names if hasattr(module := importlib.import_module(f"{__name__}.{name}"), "WORLDS")]
