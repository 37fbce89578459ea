"""Pages for people, on demand. What each tick writes by itself is `monitoring`'s."""

from datetime import UTC, datetime

import dagster as dg

from selfheal_assets import links
from selfheal_assets.assets import BY_HAND, OWNERS, described
from selfheal_assets.assets.monitoring import monitoring_alerts
from selfheal_assets.resources import PlatformResource

GROUP = "monitoring"


@dg.asset(
    group_name=GROUP,
    kinds={"plotly", "evidently"},
    owners=OWNERS,
    code_version="1",
    deps=[monitoring_alerts],
    tags=BY_HAND,
    description=described(
        "A report of the champion's traffic as it is now: verdict, distributions, shifts, missing values, quality over time, "
        "and Evidently's page. Records nothing and tells nobody.",
        runs="when a person materialises it, like `selfheal report`. Each change of state writes one by itself.",
        red="No version is in production yet, or the folder of reports cannot be written: the message says which.",
    ),
)
def monitoring_report(context: dg.AssetExecutionContext, platform: PlatformResource) -> dg.MaterializeResult[None]:
    from selfheal.services.reports.writer import report_now

    opened = platform.open()
    page = report_now(opened, datetime.now(UTC))
    if page is None:
        context.log.info("The champion has served nothing yet: there is nothing to report on.")
        return dg.MaterializeResult(metadata={"report": "none: the champion has served nothing yet"})
    return dg.MaterializeResult(
        metadata={
            "report": links.report_page(opened.settings, page.name),
            "file": dg.MetadataValue.path(page.resolve()),
        }
    )
