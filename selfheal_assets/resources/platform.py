"""The resource that provides the open platform. It has only configuration; the platform does the work."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import PrivateAttr

if TYPE_CHECKING:
    from selfheal.services.platform import Platform
    from selfheal.settings import Settings

_shared: "dict[str, Platform]" = {}
"""One open platform per configuration, for sensors, which the code server evaluates outside runs for as long as it lives."""

_opening = Lock()
"""Lock of `_shared`: threads evaluate sensors, and two that start at once must share one platform."""


class PlatformResource(dg.ConfigurableResource["PlatformResource"]):
    """Provides the platform. Settings come from the environment or `.env`; `overrides` (field -> value) win, for tests.

    A run has its own platform, opened at first use and closed with the run. Sensors share one per process, because opening it
    checks the schema and its connections are pooled.
    """

    overrides: dict[str, Any] = {}  # noqa: RUF012  (a pydantic field, copied for each instance)
    _is_of_a_run: bool = PrivateAttr(default=False)
    _of_run: "Platform | None" = PrivateAttr(default=None)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["PlatformResource"]:
        """Yield a platform that is closed at the run's end; for a sensor, the shared one."""
        if context.run is None:
            yield self
            return
        own = PlatformResource(overrides=self.overrides)
        own._is_of_a_run = True
        try:
            yield own
        finally:
            own._close()

    def settings(self) -> "Settings":
        """Return the current settings.

        Raises:
            ConfigurationError: if a setting is wrong.
        """
        from selfheal.settings import load_settings

        return load_settings(**self.overrides)

    def open(self) -> "Platform":
        """Return the platform, opened at first use.

        Raises:
            ConfigurationError: if a setting is wrong or the database belongs to another contract.
            ServiceUnavailableError: if Postgres does not respond.
        """
        from selfheal.services.platform import open_platform

        if self._is_of_a_run:
            self._of_run = self._of_run or open_platform(self.settings())
            return self._of_run
        key = json.dumps(self.overrides, sort_keys=True, default=str)
        with _opening:
            if key not in _shared:
                _shared[key] = open_platform(self.settings())
            return _shared[key]

    def _close(self) -> None:
        if self._of_run is not None:
            self._of_run.close()
            self._of_run = None


def close_all() -> None:
    """Close every shared platform of this process."""
    while _shared:
        _shared.popitem()[1].close()
