"""Who will see a doctor often? A use case in one file; docs/bring_your_own_model.md explains it step by step.

The data are those of the RAND Health Insurance Experiment (public domain): one row per person and year.
"""

import numpy as np

from selfheal.domain.contract import DerivedFeature, Feature, Label, ModelContract, Scenario, Segment


def derive(columns):
    """Return the derived features of whole columns."""
    rating = columns["is_health_good"] + 2 * columns["is_health_fair"] + 3 * columns["is_health_poor"]
    return {"health_rating": rating, "coinsurance_pct": np.expm1(columns["log_coinsurance"])}


def video_calls(inputs, labels, rng):
    """Let members grow older, and let video calls replace most visits of the chronically ill."""
    changed = inputs.assign(diseases=(inputs["diseases"] * 1.6).clip(upper=100))
    log_odds = 2 - 0.3 * inputs["diseases"].to_numpy()
    return changed, (rng.random(len(labels)) < 1 / (1 + np.exp(-log_odds))).astype(np.int64)


contract = ModelContract(
    name="health_visits",
    description="Probability that a member sees a doctor five times or more within a year.",
    label=Label("is_frequent_visitor", "1 if the member made five or more outpatient visits in the year, else 0"),
    inputs=(
        Feature("log_coinsurance", "float", 0, 5, "log(1 + %)", "Share of bills to pay", 3.3, aliases=("lncoins",)),
        Feature("has_deductible", "int", 0, 1, "0 or 1", "The plan has a deductible", 0, aliases=("idp",)),
        Feature("log_incentive", "float", 0, 12, "log(dollars)", "Paid a year for taking part", 6.1, aliases=("lpi",)),
        Feature("log_max_expense", "float", 0, 15, "log(dollars)", "Most there is to pay", 6.9, aliases=("fmde",)),
        Feature("limitation", "float", 0, 1, "share", "1 if physically limited", 0, aliases=("physlm",)),
        Feature("diseases", "float", 0, 100, "index", "Chronic diseases", 10.6, is_nullable=True, aliases=("disea",)),
        Feature("is_health_good", "int", 0, 1, "0 or 1", "Own rating of health: good", 1, aliases=("hlthg",)),
        Feature("is_health_fair", "int", 0, 1, "0 or 1", "Own rating of health: fair", 0, aliases=("hlthf",)),
        Feature("is_health_poor", "int", 0, 1, "0 or 1", "Own rating of health: poor", 0, aliases=("hlthp",)),
    ),
    derived=(
        DerivedFeature("health_rating", "int", "0 to 3", "good + 2 fair + 3 poor", "one scale for three flags"),
        DerivedFeature("coinsurance_pct", "float", "percent", "exp(log_coinsurance) - 1", "as it stands on the bill"),
    ),
    derive=derive,
    segments=(Segment("diseases", (7, 14), "few, some and many chronic diseases"),),
    scenarios=(Scenario("video_calls", "video calls replace visits", video_calls),),
)
