"""What a derived feature is computed from, found by running the derivation: a contract declares formulas for people only.

Belongs here: which inputs a derived feature depends on. The derivation itself is `ModelContract.derive`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from selfheal.domain.contract import PROBE_ROWS
from selfheal.domain.levels import codes_of, is_text

if TYPE_CHECKING:
    from selfheal.domain.contract import FloatArray, ModelContract


def inputs_of_derived(contract: ModelContract) -> dict[str, frozenset[str]]:
    """Return each derived feature's inputs: those whose change alone changes it in some probe row.

    An input that matters only beyond what the probe rows have is not found.
    """
    probe, names = contract.probe_rows(), contract.input_names
    rows = {name: np.tile(values, len(names) + 1) for name, values in probe.items()}
    for block, name in enumerate(names, 1):  # the first block is the probe itself, each other has one input exchanged
        rows[name][block * PROBE_ROWS : (block + 1) * PROBE_ROWS] = np.roll(probe[name], 1)
    with np.errstate(all="ignore"):
        derived = contract.derive(rows)
    return {
        feature.name: frozenset(
            name for name, block in zip(names, _others(derived[feature.name]), strict=True) if block
        )
        for feature in contract.derived
    }


def _others(values: FloatArray) -> list[bool]:
    """Return for each block after the first whether it differs from it."""
    found = np.asarray(values)
    numbers = codes_of(found.tolist()) if is_text(found.dtype) else found.astype(np.float64)
    blocks = numbers.reshape(-1, PROBE_ROWS)
    return [not np.array_equal(block, blocks[0], equal_nan=True) for block in blocks[1:]]
