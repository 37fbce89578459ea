"""`GET /overview`, `GET /monitoring/history` and `GET /monitoring/drift/{column}`: the data of the dashboard."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Path, Query, Request

from selfheal.domain.monitoring.drift import PROBABILITY
from selfheal.services.reports.files import results_folder
from serving.dependencies import ServiceDependency
from serving.observability.history import history
from serving.observability.overview import overview
from serving.routes.monitoring import monitoring_stats
from serving.schemas.dashboard import (
    AxisTick,
    ColumnDistribution,
    ComparedRows,
    Histogram,
    History,
    HistoryParameters,
    Overview,
)
from serving.schemas.problems import ProblemError, documented
from serving.schemas.responses import ColumnInfo, QueryParameters
from serving.security.auth import Authenticator, Caller, Scope, requires

if TYPE_CHECKING:
    from selfheal.adapters.postgres.store import Store
    from selfheal.domain.contract import ModelContract
    from selfheal.domain.monitoring.histogram import Distribution
    from serving.observability.distributions import ComparedWindow

router = APIRouter(responses=documented(401, 403, 422, 429, 503))
reading = [Depends(requires(Scope.READ))]

ColumnName = Annotated[str, Path(min_length=1, max_length=200, description="a feature, or `probability`")]


@router.get("/overview", tags=["state"], summary="Show the state of the model in a sentence")
async def get_overview(
    request: Request,
    service: ServiceDependency,
    caller: Annotated[Caller, Depends(requires(Scope.READ))],
    _: Annotated[QueryParameters, Query()],
) -> Overview:
    """Return the state in the words of `selfheal status`, with the figures behind it.

    These are the version in production and its probation, the latest tick, the number of open alerts, and the scopes of
    the caller's key. Unknown values are null; the tone is then `unknown`.
    """
    authenticator: Authenticator = request.app.state.authenticator
    now, interval = datetime.now(UTC), timedelta(seconds=service.platform.settings.monitoring_interval)

    def ask(store: Store) -> Overview:
        stats = monitoring_stats(store, interval, now)
        platform = replace(service.platform, store=store, server_lease=None)
        return overview(platform, stats, caller, asks_for_keys=authenticator.asks_for_keys, now=now)

    return await service.read_pool.run(ask)


@router.get(
    "/monitoring/history", tags=["monitoring"], summary="Show the monitor's results over time", dependencies=reading
)
async def get_history(service: ServiceDependency, parameters: Annotated[HistoryParameters, Query()]) -> History:
    """Return verdicts, drift of all columns, proxy metrics and quality with intervals, in at most `points` steps.

    Each step has the values of its newest tick, and the most severe verdict and the drift of all its ticks. All
    versions are included.
    """
    ask = partial(
        history,
        now=datetime.now(UTC),
        period=timedelta(hours=parameters.hours),
        max_points=parameters.points,
        folder=results_folder(service.platform.settings.data_dir),
    )
    return await service.read_pool.run(ask)


@router.get(
    "/monitoring/drift/{column}",
    tags=["monitoring"],
    summary="Show one column, now and in the reference",
    dependencies=reading,
    responses=documented(404),
)
async def get_column(
    service: ServiceDependency, column: ColumnName, _: Annotated[QueryParameters, Query()]
) -> ColumnDistribution:
    """Return the distribution of a column now and in the reference, over the same bars.

    Now means the rows that the latest tick compared. The reference is that of the version in production. The first
    column of a tick takes longer; it prepares all others.
    """
    if column not in {*service.platform.contract.feature_names, PROBABILITY}:
        raise ProblemError(404, "not_found", "there is no such column; GET /monitoring/drift lists them")
    description, unit = _wording(service.platform.contract, column)
    window = await service.read_pool.run(service.distributions.latest)
    found = None if window is None else window.columns[column]
    return ColumnDistribution(
        column=column,
        description=description,
        unit=unit,
        compared=None if window is None else _compared_rows(window, column),
        bars=None if found is None or found.bars is None else _bars(found.bars),
        drift=None if found is None or found.drift is None else ColumnInfo.model_validate(found.drift),
    )


def _compared_rows(window: ComparedWindow, column: str) -> ComparedRows:
    return ComparedRows(
        model_version=window.tick.model_version,
        window_start=window.tick.window_start,
        window_end=window.tick.window_end,
        n_current=window.n_current,
        n_reference=window.n_reference,
        current_missing_pct=window.columns[column].current_missing_pct,
        reference_missing_pct=window.columns[column].reference_missing_pct,
    )


def _bars(found: Distribution) -> Histogram:
    return Histogram(
        labels=list(found.labels),
        reference_pct=list(found.reference_pct),
        current_pct=list(found.current_pct),
        ticks=[AxisTick(place=place, text=text) for place, text in found.ticks],
    )


def _wording(contract: ModelContract, column: str) -> tuple[str, str]:
    """Return the description and unit that the contract declares."""
    declared = {feature.name: (feature.description, feature.unit) for feature in contract.inputs}
    derived = {feature.name: (f"{feature.formula}: {feature.reason}", feature.unit) for feature in contract.derived}
    return (declared | derived).get(column, ("What the model predicts", "probability"))
