"""Sensors of machines: headers with units, tabs, failures in 1.8 % of the rows as `True` and `False`, gaps as `None`."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from selfheal.domain.contract import Feature, Label, ModelContract

contract = ModelContract(
    name="machine_sensors",
    description="Probability that a machine fails during the operation.",
    label=Label("fails", "1 if the machine failed", aliases=("Machine failure",)),
    inputs=(
        Feature("air_k", "float", 250, 350, "kelvin", "Air", 300, aliases=("Air temperature [K]",)),
        Feature("speed_rpm", "int", 0, 10_000, "rpm", "Speed", 1_500, True, ("Rotational speed [rpm]",)),
        Feature("torque_nm", "float", 0, 500, "Nm", "Torque", 40, True, ("Torque [Nm]",)),
        Feature("wear_min", "int", 0, 1_000, "minutes", "Tool wear", 100, aliases=("Tool wear [min]",)),
    ),
    param_grid={"classify__C": (0.001, 0.01)},
)

FAILURE_RATE = 0.018


def write(path: Path, n_rows: int = 4_000, seed: int = 20) -> None:
    """Write the file, packed by gzip."""
    rng = np.random.default_rng(seed)
    torque, wear = rng.normal(40, 10, n_rows).clip(3, 90), rng.integers(0, 250, n_rows)
    risk = 0.15 * torque + 0.04 * wear + rng.gumbel(0, 1.2, n_rows)
    fails = risk > np.quantile(risk, 1 - FAILURE_RATE)
    header = ("UDI", "Product ID", "Air temperature [K]", "Rotational speed [rpm]", "Torque [Nm]", "Tool wear [min]")
    lines = ["\t".join((*header, "Machine failure"))]
    for row in range(n_rows):
        speed = "None" if rng.random() < 0.02 else str(int(rng.normal(1_500, 150)))
        shown = "None" if rng.random() < 0.02 else f"{torque[row]:.1f}"
        fields = (row + 1, f"M{14_860 + row}", f"{rng.normal(300, 2):.1f}", speed, shown, wear[row], bool(fails[row]))
        lines.append("\t".join(map(str, fields)))
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
