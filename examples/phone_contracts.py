"""Which customers will leave? A use case with flags and categories, in one file; it makes its own rows, so it needs no data.

The rows have the shape of a telephone company's: terms of contract, regions of very different size, blanks.
"""

import numpy as np
import pandas as pd

from selfheal.domain.contract import DerivedFeature, Feature, Label, ModelContract, Scenario

PLANS = ("month-to-month", "one year", "two years")
REGIONS = tuple(f"Région {number}" for number in range(40))


def derive(columns):
    """Return the derived features of whole columns: a category is an array of texts, a bool of 0 and 1."""
    terms = {"month-to-month": "free", "one year": "bound", "two years": "bound"}
    return {
        "is_new": columns["tenure_months"] < 6,
        "term": np.array([terms.get(plan, "other") for plan in columns["plan"]], dtype=object),
    }


def log_odds(rows):
    """Return how likely each customer is to leave."""
    of_plan = rows["plan"].map(dict(zip(PLANS, (0.6, -0.6, -1.6), strict=True))).fillna(0.0)
    is_remote = rows["region"].isin(REGIONS[::3])
    calls = 1.2 * (rows["tenure_months"] < 6) + 0.02 * rows["monthly_charge"] + 1.0 * rows["is_paperless"]
    return (calls - 0.8 * rows["has_partner"].fillna(0.0) + of_plan + 0.8 * is_remote - 2.0).to_numpy()


def outcomes(rows, rng):
    """Return who leaves."""
    return (rng.random(len(rows)) < 1 / (1 + np.exp(-log_odds(rows)))).astype(np.int64)


def synthesize(n_rows, seed):
    """Return a stand-in: raw inputs and `true_label`."""
    rng = np.random.default_rng(seed)
    region = np.minimum(rng.geometric(0.1, n_rows) - 1, len(REGIONS) - 1)
    rows = pd.DataFrame(
        {
            "tenure_months": rng.integers(0, 72, n_rows),
            "monthly_charge": rng.uniform(20.0, 120.0, n_rows).round(2),
            "is_paperless": (rng.random(n_rows) < 0.6).astype(float),
            "has_partner": np.where(rng.random(n_rows) < 0.1, np.nan, rng.random(n_rows) < 0.5),
            "plan": np.array(PLANS, dtype=object)[rng.choice(3, n_rows, p=(0.55, 0.25, 0.2))],
            "region": np.where(rng.random(n_rows) < 0.05, None, np.array(REGIONS, dtype=object)[region]),
        }
    )
    return rows.assign(true_label=outcomes(rows, rng))


def cheap_offer(inputs, labels, rng):
    """Let a new plan take over from the one without a term; whoever takes it stays."""
    takes_it = (inputs["plan"] == PLANS[0]) & (rng.random(len(inputs)) < 0.7)
    changed = inputs.assign(plan=inputs["plan"].where(~takes_it, "flat rate"))
    return changed, np.where(takes_it, (rng.random(len(labels)) < 0.05).astype(np.int64), labels)


contract = ModelContract(
    name="phone_contracts",
    description="Probability that a customer ends the contract within a month.",
    label=Label("has_left", "1 if the customer ended the contract within the month, else 0", aliases=("Churn",)),
    inputs=(
        Feature("tenure_months", "int", 0, 1_000, "months", "Time as a customer", 14, aliases=("tenure",)),
        Feature("monthly_charge", "float", 0, 10_000, "euro", "Last bill", 54.9, aliases=("MonthlyCharges",)),
        Feature("is_paperless", "bool", description="Bills come by mail", example=True, aliases=("PaperlessBilling",)),
        Feature("has_partner", "bool", description="Lives with a partner", example=False, is_nullable=True),
        Feature("plan", "category", description="Term of the contract", example=PLANS[0], levels=PLANS),
        Feature("region", "category", description="Where the line ends", example=REGIONS[0], is_nullable=True),
    ),
    derived=(
        DerivedFeature("is_new", "bool", "true or false", "tenure_months < 6", "new customers leave"),
        DerivedFeature("term", "category", "free, bound, other", "by plan", "those who can leave do"),
    ),
    derive=derive,
    synthesize=synthesize,
    scenarios=(Scenario("cheap_offer", "a new plan takes over", cheap_offer),),
)
