"""Owners of assets: the value of ASSET_OWNERS as a list."""

from __future__ import annotations

import re

from selfheal.kit.errors import ConfigurationError

OWNER = re.compile(r"team:\S+|[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}")
"""Dagster's own pattern, so that an accepted owner does not stop the code location from loading."""


def parse_owners(value: str) -> list[str]:
    """Return the owners, comma-separated in `value`: e-mail addresses, or teams as `team:name`.

    Raises:
        ConfigurationError: if an entry is neither; the message names the first one.

    >>> parse_owners("ada@example.org, team:risk")
    ['ada@example.org', 'team:risk']
    """
    owners = [owner.strip() for owner in value.split(",") if owner.strip()]
    for owner in owners:
        if OWNER.fullmatch(owner) is None:
            raise ConfigurationError(f"{owner!r} is neither an e-mail address nor of the form team:name")
    return owners
