"""The asset graph, one module per group, in the order of the loop: reference, serving_logs, monitoring, retraining, promotion.

An asset loads its inputs, calls one function of `selfheal.services`, and returns the record with metadata for people: numbers
under names that never change (the UI plots them), and links to related pages. `described` gives every description its three
parts; `selfheal_assets.metadata` makes metadata plain. `definitions` adds what all assets have in common (group, owners, code version, the link to the dashboard).
"""

RUNS_TAG = "selfheal/runs"
"""Tag to filter assets by when they run: EACH_TICK, ON_REQUEST, AT_BOOTSTRAP, ON_PROBATION, MONTHLY or BY_HAND."""

EACH_TICK = {RUNS_TAG: "each_tick"}
ON_REQUEST = {RUNS_TAG: "on_request"}
AT_BOOTSTRAP = {RUNS_TAG: "at_bootstrap"}
ON_PROBATION = {RUNS_TAG: "on_probation"}
MONTHLY = {RUNS_TAG: "monthly"}
BY_HAND = {RUNS_TAG: "by_hand"}


def described(what: str, *, runs: str, red: str) -> str:
    r"""Return a description in three parts: what an asset is, when it runs, and what to do if it fails.

    >>> described("The log.", runs="with each tick.", red="Free some disk.")
    'The log.\n\n**Runs** with each tick.\n\n**Red?** Free some disk.'
    """
    return f"{what}\n\n**Runs** {runs}\n\n**Red?** {red}"
