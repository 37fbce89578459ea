"""The report on policies that the platform writes of itself: its own logs, replayed under several policies, as a page.

Belongs here: what the monthly report covers. It reads the logs and writes one page; nothing in production follows from it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from selfheal.services.reports.files import reports_folder
from selfheal.services.reports.writer import delete_old_reports
from selfheal.simulate.replay.comparison import results_of
from selfheal.simulate.replay.engine import INTERVAL
from selfheal.simulate.replay.logs import deployment_of_logs
from selfheal.simulate.replay.plans import POLICIES_FOR_LOGS, chosen_policies, plan_of_logs
from selfheal.simulate.replay.policy_spec import parse_policy
from selfheal.simulate.replay.report_files import save_report
from selfheal.simulate.replay.runs import run_cells
from selfheal.simulate.replay.stream import UNKNOWN
from selfheal.simulate.replay.tables import policy_rows

if TYPE_CHECKING:
    from selfheal.services.platform import Platform


@dataclass(frozen=True)
class PolicyReport:
    """A written report: its page, what was replayed, a row of text per policy, and the Brier score that each reached."""

    page: Path
    description: str
    n_predictions: int
    n_labels: int
    rows: tuple[Mapping[str, str], ...]
    brier: Mapping[str, float | None]


def write_policy_report(
    platform: Platform, now: datetime, on_progress: Callable[[int, int], None] | None = None
) -> PolicyReport:
    """Replay the logs of the last POLICY_REPORT_DAYS days under several policies, in this process, and write the page.

    Raises:
        InvalidDataError: if there are too few predictions or labels to replay.
    """
    settings = platform.settings
    since = now - timedelta(days=settings.policy_report_days)
    logged = deployment_of_logs(
        platform, since=since, until=now, max_rows=settings.policy_report_max_rows, seed=settings.random_seed
    )
    plan = plan_of_logs(logged, chosen_policies((), (), POLICIES_FOR_LOGS, settings=settings))
    with tempfile.TemporaryDirectory(prefix="selfheal-policies-") as folder:
        run = plan.run(Path(folder) / "results.jsonl", INTERVAL)
        done = run_cells(run, plan.cells, processes=0, on_progress=on_progress)
    results = results_of(done, plan.descriptions, plan.natural)
    page = save_report(
        reports_folder(settings.data_dir),
        results,
        rows_of=plan.rows_of,
        interval_hours=INTERVAL / timedelta(hours=1),
        now=now,
    )
    delete_old_reports(platform, now)
    labels = logged.deployment.stream.true_label
    return PolicyReport(
        page,
        logged.description,
        len(labels),
        int((labels != UNKNOWN).sum()),
        tuple(policy_rows(results[0])),
        {parse_policy(policy).name: figures["brier"][1] for policy, figures in results[0].figures.items()},
    )
