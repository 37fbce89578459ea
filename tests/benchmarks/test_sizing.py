"""What the costs of one prediction mean for a day's traffic."""

from __future__ import annotations

import psutil
import pytest

from benchmarks.sizing import PREDICTIONS_A_DAY, Footprint, cpu_seconds, sizes

MEASURED = Footprint(
    n_predictions=1_000,
    api_cpu_ms=0.2,
    postgres_cpu_ms=0.3,
    journal_bytes=100.0,
    postgres_bytes=500.0,
    api_rss_mb=300.0,
    requests_per_second=3_000.0,
)


def test_a_million_predictions_a_day_need_what_follows_from_one() -> None:
    (found,) = [size for size in sizes(MEASURED) if size.predictions_a_day == 1_000_000]
    assert found.peak_per_second == pytest.approx(10 * 1_000_000 / 86_400)
    assert found.peak_cores == pytest.approx(found.peak_per_second * 0.5 / 1_000)
    assert found.journal_gb_a_year == pytest.approx(36.5)
    assert found.postgres_gb_a_year == pytest.approx(182.5)


def test_each_volume_is_told() -> None:
    assert [size.predictions_a_day for size in sizes(MEASURED)] == list(PREDICTIONS_A_DAY)


def test_the_cores_of_a_process_include_those_of_its_children() -> None:
    own = psutil.Process()
    assert cpu_seconds(own) >= sum(own.cpu_times()[:2]) > 0
