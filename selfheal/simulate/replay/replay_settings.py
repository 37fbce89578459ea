"""Settings of a replay: the platform's, with what the simulated clock prescribes and what a user wants to try."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pydantic import ValidationError

from selfheal.kit.errors import ConfigurationError
from selfheal.settings import Settings

LONGEST_INTERVAL = timedelta(days=1)
"""Between two looks of the platform: that of MONITORING_INTERVAL."""

ANY_LATENCY = 1_000.0
"""MAX_LATENCY_RATIO of a replay: how long a model takes on this machine must not change what is replayed."""


def settings_of_replay(
    base: Settings, interval: timedelta, seed: int, overrides: Mapping[str, Any] | None = None
) -> Settings:
    """Return settings for a replay with a look each `interval`: the false-alarm budget is shared out among its looks.

    Args:
        base: the platform's settings.
        seed: of what is fitted and drawn.
        overrides: settings to try, by name in either case.

    Raises:
        ConfigurationError: if there is no such setting, or it does not allow the value; or if the interval is longer than
            `LONGEST_INTERVAL`.
    """
    if interval > LONGEST_INTERVAL:
        raise ConfigurationError(
            f"the interval between two looks is {interval}; the platform's own policy looks at least once a day: choose less"
        )
    found = base.model_copy()
    wanted = prescribed(interval, seed) | {name.lower(): value for name, value in (overrides or {}).items()}
    for name, value in wanted.items():
        if name not in type(base).model_fields:
            raise ConfigurationError(f"there is no setting {name.upper()}; .env.example lists them")
        try:
            type(base).__pydantic_validator__.validate_assignment(found, name, value)
        except ValidationError as error:
            problem = error.errors()[0]["msg"]
            raise ConfigurationError(f"{name.upper()}={value} is not possible: {problem}") from None
    return found


def prescribed(interval: timedelta, seed: int) -> dict[str, Any]:
    """Return the settings that every replay has, whatever the platform's are."""
    return {
        "monitoring_interval": max(5, round(interval.total_seconds())),
        "random_seed": seed,
        "training_jobs": 1,
        "training_backend": "threading",
        "max_latency_ratio": ANY_LATENCY,
    }
