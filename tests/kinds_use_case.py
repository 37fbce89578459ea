"""The example with inputs that are no numbers (examples/phone_contracts.py), as a module that tests and their processes import."""

from __future__ import annotations

import sys

from tests.processes import REPOSITORY

sys.path.append(str(REPOSITORY / "examples"))

from phone_contracts import PLANS, REGIONS, contract

__all__ = ["PLANS", "REGIONS", "contract"]
