"""`python -m selfheal_assets JOB [CONFIG]`: runs one job here and now (CONFIG is run config as JSON) on the instance of DAGSTER_HOME; its events go to stderr."""

import json
import sys

import dagster as dg

from selfheal_assets.definitions import defs


def main(job_name: str, config: str = "{}") -> int:
    """Returns 0 if the run succeeded."""
    job = defs.resolve_job_def(job_name)
    with dg.DagsterInstance.get() as instance:
        result = job.execute_in_process(run_config=json.loads(config), instance=instance, raise_on_error=False)
    return 0 if result.success else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
