"""The resource that hands out the open platform. It has configuration only; work is done by the object it gives."""

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
"""One open platform per configuration, for what has no run: the code server evaluates sensors as long as it lives."""

_opening = Lock()
"""Sensors are evaluated by threads: two that begin at once share one platform."""


class PlatformResource(dg.ConfigurableResource["PlatformResource"]):
    """Settings come from the environment or `.env`; `overrides` (field -> value) wins, for tests.

    A run has a platform of its own, opened at first use and closed with the run. Sensors share one per process: opening it
    checks the schema, and its connections are pooled.
    """

    overrides: dict[str, Any] = {}  # noqa: RUF012  (a pydantic field, copied for each instance)
    _is_of_a_run: bool = PrivateAttr(default=False)
    _of_run: "Platform | None" = PrivateAttr(default=None)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["PlatformResource"]:
        """Give a run a platform that is closed at its end; a sensor the shared one."""
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
        """Return the settings in force.

        Raises:
            ConfigurationError: naming what is wrong with one.
        """
        from selfheal.settings import load_settings

        return load_settings(**self.overrides)

    def open(self) -> "Platform":
        """Return the platform, opened at first use.

        Raises:
            ConfigurationError, ServiceUnavailableError: naming what is wrong and what to do.
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
