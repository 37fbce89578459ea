"""Names of the jobs, by which sensors and schedules launch them. Dagster stores them, so they must not change."""

MONITORING_JOB = "monitoring_job"
RETRAINING_JOB = "retraining_job"
BOOTSTRAP_JOB = "bootstrap_job"
PROBATION_JOB = "probation_job"
MAINTENANCE_JOB = "maintenance_job"
PROMOTE_JOB = "promote_job"
ROLLBACK_JOB = "rollback_job"
POLICY_REPORT_JOB = "policy_report_job"

RETRAINING_TAG = {"selfheal/job": "retraining"}
"""Of runs that train. dagster.yaml lets one run with this tag at a time: two would compete for the same promotion."""

TRAINING_JOBS = frozenset({BOOTSTRAP_JOB, RETRAINING_JOB})
"""Jobs that open an MLflow run."""
