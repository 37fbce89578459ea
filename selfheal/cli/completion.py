"""Shell completion: versions and open alerts of the platform that the settings name.

Errors are silent: a failed completion offers nothing, because it must not write into the line being typed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfheal.kit.errors import SelfhealError

if TYPE_CHECKING:
    from collections.abc import Callable

    from selfheal.settings import Settings

Offers = list[tuple[str, str]]


def versions(incomplete: str) -> Offers:
    """Return the registered versions, newest first, each with its stage."""
    from selfheal.adapters.postgres import completions

    return _matching(completions.versions, incomplete)


def open_alerts(incomplete: str) -> Offers:
    """Return the ids of open alerts, newest first, each with its subject."""
    from selfheal.adapters.postgres import completions

    return _matching(completions.open_alerts, incomplete)


def scenarios(incomplete: str) -> Offers:
    """Return `calm` and the scenarios of the contract."""
    from selfheal.domain.contract import CALM, load_contract

    def named(settings: Settings) -> Offers:
        contract = load_contract(settings.use_case)
        return [(CALM, "as it is"), *((scenario.name, scenario.description) for scenario in contract.scenarios)]

    return _matching(named, incomplete)


def _matching(known: Callable[[Settings], Offers], incomplete: str) -> Offers:
    from selfheal.settings import load_settings

    try:
        return [offer for offer in known(load_settings()) if offer[0].startswith(incomplete)]
    except (SelfhealError, OSError):
        return []
