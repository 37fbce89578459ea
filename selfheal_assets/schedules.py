"""Schedules: what runs by the calendar alone."""

from __future__ import annotations

import dagster as dg

from selfheal_assets.assets.retraining import RequestTrigger, RetrainingRequest
from selfheal_assets.job_names import MAINTENANCE_JOB, POLICY_REPORT_JOB, RETRAINING_JOB

weekly_retraining = dg.ScheduleDefinition(
    name="weekly_retraining",
    job_name=RETRAINING_JOB,
    cron_schedule="0 2 * * 1",
    execution_timezone="UTC",
    run_config=RetrainingRequest(
        trigger=RequestTrigger.schedule, reason="weekly schedule", actor="weekly_retraining"
    ).run_config(),
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every Monday at 02:00 UTC: asks for a retraining; the conditions decide whether there is anything to gain, and the "
    "decision, to train or to skip, is recorded with its reasons.",
)

daily_maintenance = dg.ScheduleDefinition(
    name="daily_maintenance",
    job_name=MAINTENANCE_JOB,
    cron_schedule="30 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every day at 03:30 UTC: deletes what is old: runs, files and rows, by the settings `*_RETENTION_DAYS`.",
)

monthly_policy_report = dg.ScheduleDefinition(
    name="monthly_policy_report",
    job_name=POLICY_REPORT_JOB,
    cron_schedule="0 4 1 * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="On the first of each month at 04:00 UTC: replays the last `POLICY_REPORT_DAYS` days under several policies, and "
    "writes a report of what each would have cost. Nothing in production changes.",
)

ALL_SCHEDULES = (weekly_retraining, daily_maintenance, monthly_policy_report)
