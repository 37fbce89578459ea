"""Verification of everything, or of one decision: what `selfheal verify` calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from selfheal.adapters.decision_log import verify_decisions
from selfheal.adapters.postgres import decisions
from selfheal.domain.records import JUDGED, Decision
from selfheal.kit.errors import PermanentError
from selfheal.services.verification.artifacts import (
    check_alias,
    check_models,
    check_references,
    check_training_sets,
)
from selfheal.services.verification.decided import check_chain, check_files, check_promotions
from selfheal.services.verification.findings import Check, CheckResult, Verification
from selfheal.services.verification.journaled import check_journals, journal_bytes
from selfheal.services.verification.segments import check_rows, check_segments
from selfheal.services.verification.verdicts import check_verdicts, newest_verdicts

if TYPE_CHECKING:
    from selfheal.domain.retraining.dataset import TrainingSet
    from selfheal.services.platform import Platform

NEWEST_VERDICTS = 5
"""Number of verdicts recomputed by default: each needs one or two models and up to 50,000 rows."""


@dataclass(frozen=True)
class Listener:
    """Callbacks for progress: the current step, and the bytes of the journal read so far and in total."""

    on_step: Callable[[str], None] = lambda _: None
    on_bytes: Callable[[int, int], None] = lambda _done, _total: None


def verify_everything(
    platform: Platform,
    *,
    n_verdicts: int = NEWEST_VERDICTS,
    expected_head: str | None = None,
    listener: Listener | None = None,
) -> Verification:
    """Check all copies of the past against each other.

    Args:
        n_verdicts: number of newest verdicts that are recomputed and whose training sets are compared with the journal.
        expected_head: a head of the chain noted elsewhere; it must still be in the chain.
    """
    listener = listener or Listener()
    head = decisions.chain_head(platform.store)
    verdicts = newest_verdicts(platform, n_verdicts)
    results = [
        check_chain(platform, expected_head),
        check_files(platform),
        check_promotions(platform),
        check_models(platform, listener.on_step),
        check_references(platform, listener.on_step),
        check_training_sets(platform, verdicts, listener.on_step),
        check_alias(platform),
        *_segments(platform, listener),
        *_journals(platform, verdicts, listener),
        check_verdicts(platform, verdicts, listener.on_step),
    ]
    return Verification(tuple(results), head)


def verify_decision(platform: Platform, decision_id: str, listener: Listener | None = None) -> Verification:
    """Verify one decision: its row in the chain, its file, and, if gates decided it, the recomputed gates.

    Raises:
        PermanentError: if there is no such decision.
    """
    listener = listener or Listener()
    record = _check_record(platform, decision_id)
    decision = decisions.all_readable(platform.store).get(decision_id)
    results = [record]
    if decision is not None and decision.action in JUDGED:
        results += [
            check_training_sets(platform, [decision], listener.on_step, with_versions=False),
            check_verdicts(platform, [decision], listener.on_step),
        ]
    return Verification(tuple(results), decisions.chain_head(platform.store))


def _check_record(platform: Platform, decision_id: str) -> CheckResult:
    """Check one decision against chain and files."""
    problems = verify_decisions(platform.store, platform.settings.data_dir)
    found = [problem for problem in problems if decision_id in problem]
    if not found and decisions.find(platform.store, decision_id) is None:
        raise PermanentError(f"there is no decision {decision_id}; `selfheal history` and `selfheal status` name some")
    check = Check("record in the chain and as a file", n_checked=1)
    check.found(found)
    return check.result()


def _segments(platform: Platform, listener: Listener) -> list[CheckResult]:
    listener.on_step("journal files and the rows that came from them")
    return [check_segments(platform), check_rows(platform)]


def _journals(platform: Platform, verdicts: Sequence[Decision], listener: Listener) -> list[CheckResult]:
    total, done = journal_bytes(platform), 0

    def on_bytes(n_bytes: int) -> None:
        nonlocal done
        done += n_bytes
        listener.on_bytes(done, total)

    listener.on_step("journal")
    check = Check("journal")
    with check.checking("journal", n_things=0):
        return check_journals(platform, _snapshots(platform, verdicts), on_bytes)
    return [check.result()]


def _snapshots(platform: Platform, verdicts: Sequence[Decision]) -> dict[str, Callable[[], TrainingSet]]:
    def load(run_id: str) -> TrainingSet:
        return platform.registry.training_set(platform.registry.shadow_of_run(run_id))

    runs = dict.fromkeys(verdict.mlflow_run_id for verdict in verdicts if verdict.mlflow_run_id is not None)
    return {f"the training set of run {run_id}": partial(load, run_id) for run_id in runs}
