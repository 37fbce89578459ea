"""Probation sensor: request an evaluation of a version on probation when it is due."""

from datetime import UTC, datetime

import dagster as dg

from selfheal_assets.job_names import PROBATION_JOB
from selfheal_assets.resources.platform import PlatformResource
from selfheal_assets.resources.versions import MODEL_VERSIONS, partition_of
from selfheal_assets.sensors.skipping import skip, unless_running


def build_probation_sensor(every_seconds: int) -> dg.SensorDefinition:
    """Return the probation sensor, evaluated every `every_seconds`. Its runs belong to the version's partition."""

    @dg.sensor(
        job_name=PROBATION_JOB,
        minimum_interval_seconds=every_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Watches a newly promoted version while labels come in: requests an evaluation for every tenth more of them, "
        "and at the end.",
    )
    @unless_running(PROBATION_JOB, "The evaluation before is still running.", every_seconds)
    def probation_sensor(
        context: dg.SensorEvaluationContext, platform: PlatformResource
    ) -> dg.SensorResult | dg.SkipReason:
        from selfheal.adapters.postgres.model_versions import production_version
        from selfheal.services.probation import due_evaluation

        opened = platform.open()
        champion = production_version(opened.store)
        evaluation, sentence = due_evaluation(opened, datetime.now(UTC))
        if champion is None or evaluation is None or evaluation == context.cursor:
            return skip(f"{sentence} No evaluation is due.", every_seconds)
        partition = partition_of(champion.version)
        return dg.SensorResult(
            run_requests=[dg.RunRequest(run_key=evaluation, partition_key=partition)],
            dynamic_partitions_requests=[MODEL_VERSIONS.build_add_request([partition])],
            cursor=evaluation,
        )

    return probation_sensor
