"""Pages for people, on demand. What each tick writes by itself is `monitoring`'s."""

from datetime import UTC, datetime

import dagster as dg

from selfheal_assets.assets import OWNERS
from selfheal_assets.assets.monitoring import monitoring_alerts
from selfheal_assets.resources import PlatformResource

GROUP = "reports"


@dg.asset(
    group_name=GROUP,
    kinds={"plotly", "evidently"},
    owners=OWNERS,
    code_version="1",
    deps=[monitoring_alerts],
    description="A report of the champion's traffic as it is now: verdict, distributions, shifts, missing values, quality over "
    "time, and Evidently's page. Records nothing and tells nobody. **Runs** when a person materialises it, like "
    "`selfheal report`; each change of state writes one by itself.",
)
def monitoring_report(context: dg.AssetExecutionContext, platform: PlatformResource) -> dg.MaterializeResult[None]:
    from selfheal.reports import report_now

    opened = platform.open()
    page = report_now(opened, datetime.now(UTC))
    if page is None:
        context.log.info("The champion has served nothing yet: there is nothing to report on.")
        return dg.MaterializeResult(metadata={"report": "none: the champion has served nothing yet"})
    settings = opened.settings
    served_at = f"http://{settings.api_host}:{settings.api_port}/monitoring/reports/{page.name}"
    return dg.MaterializeResult(
        metadata={"report": dg.MetadataValue.url(served_at), "file": dg.MetadataValue.path(page.resolve())}
    )
