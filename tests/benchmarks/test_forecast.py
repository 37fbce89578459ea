"""The estimate of the rest of a run follows what its parts have taken."""

from __future__ import annotations

from datetime import timedelta

import pytest

from benchmarks.forecast import Forecast


def seconds(forecast: Forecast, **so_far: float) -> float:
    return forecast.time_left(**so_far).total_seconds()


def test_a_kind_takes_as_long_as_its_parts_that_are_done_and_an_unknown_one_as_all_others() -> None:
    forecast = Forecast(2)
    for kind in ("a", "b"):
        forecast.add(kind, 10.0)
        forecast.add(kind, 30.0)
    assert seconds(forecast) == pytest.approx(40.0)
    forecast.finish("a", 10.0, 20.0)
    assert forecast.cpu_left("a") == pytest.approx(60.0)
    assert forecast.cpu_left("b") == pytest.approx(80.0)
    forecast.finish("b", 10.0, 5.0)
    assert forecast.cpu_left("b") == pytest.approx(15.0)
    assert seconds(forecast) == pytest.approx(37.5)
    for kind in ("a", "b"):
        forecast.finish(kind, 30.0, 1.0)
    assert seconds(forecast) == 0.0


def test_a_busy_machine_takes_as_much_longer_as_it_did_so_far() -> None:
    forecast = Forecast(2)
    forecast.add("a", 100.0)
    assert seconds(forecast, wall_s=30.0, cpu_s=20.0) == pytest.approx(150.0)
    assert seconds(forecast, wall_s=1.0, cpu_s=20.0) == pytest.approx(50.0)  # never faster than the cores
    assert seconds(forecast, wall_s=1_000.0, cpu_s=1.0) == pytest.approx(500.0)  # at most ten times as long


def test_what_was_done_before_corrects_the_plan() -> None:
    forecast = Forecast(1)
    forecast.learn("a", 1.0, 2.0)
    forecast.add("a", 60.0)
    forecast.add("b", 1_800.0)
    assert forecast.plan("2 parts") == "2 parts; about 1 h 2 min on 1 idle core (CPU time: a 2 min, b 1 h)"
    assert forecast.time_left() == timedelta(seconds=3_720)
