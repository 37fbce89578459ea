"""Explanations in responses: the model for OpenAPI, and plain values for many rows at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field

if TYPE_CHECKING:
    from selfheal.domain.model.explanation import Explanation as ExplainedRows


class AdverseReason(BaseModel):
    """One reason for class 1."""

    code: str = Field(description="stable and for programs")
    text: str = Field(description="for the person concerned; names the feature, whichever way its value points")
    contribution: float = Field(description="log-odds above the baseline; several features may share a reason")


class Explanation(BaseModel):
    """Why a row got its score: `baseline_log_odds` plus all `contributions` is exactly `log_odds`."""

    baseline: Literal["reference", "stand_in"] = Field(
        description="the rows whose average the row is compared with: the reference rows of this model version, or stand-in rows of "
        "the use case where those of the version are not available"
    )
    baseline_log_odds: float = Field(description="average log-odds of the baseline's rows")
    log_odds: float = Field(
        description="log(p / (1 - p)) of the probability of class 1; finite even where p rounds to 1"
    )
    contributions: dict[str, float] = Field(
        description="log-odds that each feature, derived ones included, adds to the baseline; above 0 points to class 1"
    )
    reasons: list[AdverseReason] = Field(
        max_length=4, description="the strongest reasons for class 1, the strongest first; empty if there is none"
    )


def plain_explanations(explanation: ExplainedRows) -> list[dict[str, Any] | None]:
    """Return the fields of `Explanation` for each row, ready for JSON; None for a row that has no exact explanation."""
    rows = zip(
        explanation.is_exact.tolist(),
        explanation.log_odds.tolist(),
        explanation.contributions.tolist(),
        explanation.adverse_reasons(),
        strict=True,
    )
    return [
        {
            "baseline": explanation.baseline.value,
            "baseline_log_odds": explanation.baseline_log_odds,
            "log_odds": log_odds,
            "contributions": dict(zip(explanation.feature_names, contributions, strict=True)),
            "reasons": [reason._asdict() for reason in reasons],
        }
        if is_exact
        else None
        for is_exact, log_odds, contributions, reasons in rows
    ]
