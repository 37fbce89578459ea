"""Credit cards: 23 coded columns, an index, and a label of 1 (pays) and 2 (defaults)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from selfheal.domain.contract import Feature, Label, ModelContract

MONTHS = range(1, 7)
CODES = (("sex", 1, 2), ("education", 0, 6), ("marriage", 0, 3))


def _amount(kind: str, month: int, lower: float) -> Feature:
    return Feature(f"{kind}_amt{month}", "float", lower, 1e7, "dollars", "", 0, aliases=(f"{kind.upper()}_AMT{month}",))


contract = ModelContract(
    name="credit_cards",
    description="Probability that a client does not pay next month.",
    label=Label("defaults", "1 if the client does not pay", aliases=("default payment next month",)),
    inputs=(
        Feature("limit_bal", "float", 0, 1e7, "dollars", "Credit limit", 50_000, aliases=("LIMIT_BAL",)),
        *(Feature(name, "int", low, high, "code", "", low, aliases=(name.upper(),)) for name, low, high in CODES),
        Feature("age", "int", 16, 120, "years", "Age", 35, aliases=("AGE",)),
        *(Feature(f"pay_{m}", "int", -2, 9, "months late", "", 0, aliases=(f"PAY_{m}",)) for m in MONTHS),
        *(_amount("bill", month, -1e7) for month in MONTHS),
        *(_amount("pay", month, 0) for month in MONTHS),
    ),
    param_grid={"classify__C": (0.001, 0.01)},
)


def write(path: Path, n_rows: int = 2_000, seed: int = 20) -> None:
    """Write the file, with a row of its own index and amounts with a decimal comma in quotes."""
    rng = np.random.default_rng(seed)
    headers = [feature.aliases[0] for feature in contract.inputs]
    lines = [",".join(("ID", *headers, "Source file", "default payment next month"))]
    for row in range(n_rows):
        late = [int(rng.integers(-2, 5)) for _ in MONTHS]
        money = [f'"{rng.lognormal(8, 1):.2f}"'.replace(".", ",") for _ in range(12)]
        people = [int(rng.integers(low, high + 1)) for _, low, high in CODES]
        defaults = rng.random() < 1 / (1 + np.exp(2.2 - 0.9 * late[0]))
        fields = (row + 1, 10_000 * int(rng.integers(1, 50)), *people, int(rng.integers(21, 70)), *late, *money)
        lines.append(",".join(map(str, (*fields, "batch 7", 2 if defaults else 1))))
    path.write_text("\n".join(lines) + "\n")
