"""The window that `benchmarks.monitoring_scale` makes is the one that a tick sees."""

from __future__ import annotations

from datetime import UTC, datetime

from benchmarks.monitoring_scale import backdate_champion, fill_window, write_scored_rows
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
