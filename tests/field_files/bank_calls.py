"""Calls of a bank: `;` between quoted fields, `unknown` for a missing value, `yes` and `no`, columns of words."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from selfheal.domain.contract import Feature, Label, ModelContract

contract = ModelContract(
    name="bank_calls",
    description="Probability that a client takes a deposit after a call.",
    label=Label("takes_deposit", "1 if the client takes the deposit", aliases=("y",)),
    inputs=(
        Feature("age", "int", 16, 120, "years", "Age", 40),
        Feature("is_in_default", "int", 0, 1, "0 or 1", "Has credit in default", 0, True, ("default",)),
        Feature("has_housing_loan", "int", 0, 1, "0 or 1", "Has a housing loan", 1, True, ("housing",)),
        Feature("campaign", "int", 1, 500, "calls", "Calls in this campaign", 2),
        Feature("days_since_call", "int", 0, 999, "days", "Since the last call; 999: none", 999, aliases=("pdays",)),
        Feature("euribor", "float", -1, 10, "percent", "Euribor, three months", 4.8, aliases=("euribor3m",)),
    ),
    param_grid={"classify__C": (0.001, 0.01)},
)

JOBS = ("admin.", "blue-collar", "technician", "unknown")


def write(path: Path, n_rows: int = 2_000, seed: int = 20) -> None:
    """Write the file, with a byte order mark and the line ends of Windows."""
    rng = np.random.default_rng(seed)
    lines = ['"age";"job";"contact";"default";"housing";"campaign";"pdays";"euribor3m";"y"']
    for _ in range(n_rows):
        default = rng.choice(["no", "unknown", "yes"], p=[0.79, 0.2, 0.01])
        housing = rng.choice(["yes", "no", "unknown"], p=[0.52, 0.45, 0.03])
        euribor, days = float(rng.choice([0.7, 1.3, 4.9])), 999 if rng.random() < 0.9 else int(rng.integers(0, 20))
        log_odds = 1.2 - 0.8 * euribor + (1.5 if days < 999 else 0) - (0.5 if default == "unknown" else 0)
        says_yes = "yes" if rng.random() < 1 / (1 + np.exp(-log_odds)) else "no"
        words = [rng.choice(JOBS), rng.choice(["cellular", "telephone"]), default, housing]
        quoted = ";".join(f'"{word}"' for word in words)
        age, campaign = int(rng.integers(18, 90)), int(rng.poisson(1.5)) + 1
        lines.append(f'{age};{quoted};{campaign};{days};{euribor + rng.normal(0, 0.01):.3f};"{says_yes}"')
    path.write_bytes("".join(f"{line}\r\n" for line in lines).encode("utf-8-sig"))
