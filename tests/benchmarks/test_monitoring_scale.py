"""The window that `benchmarks.monitoring_scale` makes is the one that a tick sees."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from benchmarks.measured import MeasuredOtherwiseError
from benchmarks.monitoring_scale import TickCost, backdate_champion, fill_window, tick_cost, write_scored_rows
from selfheal.adapters.datasets import load_dataset
from selfheal.services.platform import Platform
from selfheal.services.tick import collect


def test_a_tick_sees_the_whole_window_that_it_is_timed_on(platform: Platform) -> None:
    write_scored_rows(platform, load_dataset(platform.settings, platform.contract))
    written: list[int] = []
    live = backdate_champion(platform.store.engine)
    fill_window(platform.store.engine, platform.contract, live, 1_000, written.append)
    proxy = collect(platform, datetime.now(UTC))
    assert proxy is not None
    assert (proxy.window.n_predictions, proxy.window.n_labels, sum(written)) == (1_000, 300, 1_000)


FIGURES = {"tick_s": 1.0, "sql_s": 0.1, "peak_rss_mb": 300.0, "n_predictions": 1_000, "n_labels": 300, "n_ticks": 1}


def test_the_cost_of_a_tick_is_that_of_one_on_the_rows_that_were_written() -> None:
    assert tick_cost(1_000, FIGURES, 5.0) == TickCost(1_000, 1.0, 0.1, 300.0, 5.0)


@pytest.mark.parametrize("other", [{"n_predictions": 14}, {"n_labels": 0}, {"n_ticks": 6}])
def test_a_tick_on_other_rows_has_no_cost_but_an_error(other: dict[str, int]) -> None:
    with pytest.raises(MeasuredOtherwiseError, match="the figures would be of something else"):
        tick_cost(1_000, FIGURES | other, 5.0)
