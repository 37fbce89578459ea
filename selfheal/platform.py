"""The open platform: settings, contract, store and registry in one handle, for the shells and the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from selfheal.contract import ModelContract, load_contract
from selfheal.registry import Registry, open_registry
from selfheal.store import Store, open_store, release_server

if TYPE_CHECKING:
    from selfheal.settings import Settings


@dataclass(frozen=True)
class Platform:
    settings: Settings
    contract: ModelContract
    store: Store
    registry: Registry

    def close(self) -> None:
        """Returns the connections and lets go of the embedded server, which stops if this process was its last user."""
        self.store.close()
        release_server(self.settings)


def open_platform(settings: Settings) -> Platform:
    """Starts the embedded Postgres if that is configured, migrates, and opens store and registry.

    Raises:
        ConfigurationError, ServiceUnavailableError: naming what is wrong and what to do.
    """
    contract = load_contract(settings.use_case)
    return Platform(settings, contract, open_store(settings, contract), open_registry(settings, contract))
