"""The alert about rows whose derived values are unusable (`selfheal.domain.derived_values`)."""

from __future__ import annotations

from selfheal.domain.records import Alert, Severity

UNUSABLE_VALUES = "unusable_values"
"""Kind of the alert."""

REMEDY = "The disk is sound: `derive` made these values. Bound them there, or narrow the limits of its inputs in the contract."


def left_out_of_copy(n_rows: int, last: str) -> Alert:
    """Return the alert about predictions whose row in Postgres lacks a value that its column cannot hold.

    Args:
        last: file, byte and value of the last one, as the copy reports it.
    """
    message = (
        f"{n_rows:,} predictions are in Postgres without a derived value that its column cannot hold, the last one from "
        f"{last}. No training uses them, and their labels are not orphans. {REMEDY}"
    )
    return Alert(UNUSABLE_VALUES, Severity.WARNING, message, {"n_rows": n_rows})


def left_out_of_window(what: str) -> Alert:
    """Return the alert about rows that a tick leaves out; `what` is `DerivedValues.summary` of them."""
    message = (
        f"Rows of the monitored window are left out: {what}. They are not compared, and no training uses them. {REMEDY}"
    )
    return Alert(UNUSABLE_VALUES, Severity.WARNING, message)
