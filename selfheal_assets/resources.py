"""The resource that hands out the open platform. It holds configuration only; work is done by the object it gives."""

import json
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    from selfheal.services.platform import Platform
    from selfheal.settings import Settings

_open: "dict[str, Platform]" = {}
"""One platform a process and configuration: opening it checks the schema, and its connections are pooled."""


class PlatformResource(dg.ConfigurableResource[Any]):
    """Settings come from the environment or `.env`; `overrides` (field -> value) wins, for tests."""

    overrides: dict[str, Any] = {}  # noqa: RUF012  (a pydantic field, copied for each instance)

    def settings(self) -> "Settings":
        from selfheal.settings import load_settings

        return load_settings(**self.overrides)

    def open(self) -> "Platform":
        """The platform, opened at first use in this process."""
        key = json.dumps(self.overrides, sort_keys=True, default=str)
        if key not in _open:
            from selfheal.services.platform import open_platform

            _open[key] = open_platform(self.settings())
        return _open[key]


def close_all() -> None:
    """Closes every platform opened in this process."""
    while _open:
        _open.popitem()[1].close()
