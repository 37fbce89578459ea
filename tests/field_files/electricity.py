"""Half-hourly electricity prices: a time column, decimals, a label in words (`UP`, `DOWN`)."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from selfheal.domain.contract import Feature, Label, ModelContract

contract = ModelContract(
    name="electricity",
    description="Probability that the price rises above its average of the last day.",
    label=Label("class", "1 if the price rises"),
    inputs=(
        Feature("period", "int", 0, 47, "half hours", "Half hour of the day", 12),
        Feature("price", "float", 0, 10, "dollars per kWh", "Price in the state", 0.06, aliases=("NSWprice",)),
        Feature("demand", "float", 0, 1, "share of the peak", "Demand in the state", 0.4, aliases=("NSWdemand",)),
        Feature("transfer", "float", 0, 1, "share of capacity", "Transfer between states", 0.41, is_nullable=True),
    ),
    param_grid={"classify__C": (0.001, 0.01)},
)


def write(path: Path, n_rows: int = 1_500, seed: int = 20) -> None:
    """Write the file, oldest rows first."""
    rng = np.random.default_rng(seed)
    start = datetime(1996, 5, 7)  # noqa: DTZ001 (the file has no time zone)
    lines = ["date,day,period,NSWprice,NSWdemand,transfer,class"]
    for row in range(n_rows):
        time, period = start + timedelta(minutes=30 * row), row % 48
        demand = float(np.clip(0.4 + 0.2 * np.sin(period / 48 * 6.3) + rng.normal(0, 0.08), 0, 1))
        price = float(np.clip(0.06 + rng.normal(0, 0.02), 0, 10))
        rises = rng.random() < 1 / (1 + np.exp(-(12 * (demand - 0.42) - 40 * (price - 0.06))))
        transfer = "?" if rng.random() < 0.05 else f"{rng.random():.6f}"
        lines.append(
            f"{time:%Y-%m-%d %H:%M},{time:%A},{period},{price:.6f},{demand:.6f},{transfer},{'UP' if rises else 'DOWN'}"
        )
    path.write_text("\n".join(lines) + "\n")
