"""The open platform: settings, contract, store, repositories and registry in one handle, for the shells and the command line."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from selfheal.adapters.mlflow_registry import Registry, open_registry
from selfheal.adapters.postgres.lock_keys import Lock
from selfheal.adapters.postgres.mutex import exclusive
from selfheal.adapters.postgres.open import open_store, prepare_store
from selfheal.adapters.postgres.repositories import (
    PostgresAlerts,
    PostgresDecisions,
    PostgresTicks,
    PostgresTraffic,
    PostgresVersions,
)
from selfheal.adapters.postgres.store import Store, lease_server
from selfheal.domain.contract import ModelContract, load_contract
from selfheal.kit.errors import ConfigurationError
from selfheal.services.prepared_references import PreparedReferences

if TYPE_CHECKING:
    from selfheal.adapters.postgres.embedded import Lease
    from selfheal.settings import Settings


RESTORING = ".restoring"
"""In DATA_DIR while a restore is under way: of which backup, and what is done (`selfheal.services.backup`)."""


@dataclass(frozen=True)
class Platform:
    """The open platform: settings, contract, store and registry. `close` it."""

    settings: Settings
    contract: ModelContract
    store: Store
    registry: Registry
    prepared_references: PreparedReferences = field(default_factory=PreparedReferences, repr=False, compare=False)
    server_lease: Lease | None = field(default=None, repr=False, compare=False)

    @cached_property
    def traffic(self) -> PostgresTraffic:
        """Return the predictions and labels."""
        return PostgresTraffic(self.store, self.settings.data_dir)

    @cached_property
    def versions(self) -> PostgresVersions:
        """Return the model versions, their promotions and probations."""
        return PostgresVersions(self.store)

    @cached_property
    def decisions(self) -> PostgresDecisions:
        """Return the decisions."""
        return PostgresDecisions(self.store, self.settings.data_dir)

    @cached_property
    def ticks(self) -> PostgresTicks:
        """Return the monitoring ticks."""
        return PostgresTicks(self.store)

    @cached_property
    def alerts(self) -> PostgresAlerts:
        """Return the alerts."""
        return PostgresAlerts(self.store)

    def exclusive(self, lock: Lock) -> AbstractContextManager[None]:
        """Exclude every other process and thread that does the same work.

        Raises:
            ServiceUnavailableError: if another one does not end within minutes.
        """
        return exclusive(self.store, lock)

    def prepare(self) -> None:
        """Start the embedded Postgres if that is configured and not running, and make the store ready for queries.

        It tries once. Call it for a platform opened without waiting, and after an outage; it may be repeated.

        Raises:
            ServiceUnavailableError: if Postgres does not answer.
            ConfigurationError: if its database belongs to another contract.
        """
        prepare_store(self.settings, self.store, is_patient=False)

    def close(self) -> None:
        """Close the connections and release the embedded server, which stops if this platform was its last user."""
        self.store.close()
        if self.server_lease is not None:
            self.server_lease.end()


def open_platform(
    settings: Settings, *, wait_for_database: bool = True, may_be_half_restored: bool = False
) -> Platform:
    """Start the embedded Postgres if that is configured, migrate, and open store and registry.

    Args:
        wait_for_database: False contacts nothing: queries fail until `Platform.prepare` succeeds.
        may_be_half_restored: for the restore itself; to anything else an empty database would look like a new platform.

    Raises:
        ConfigurationError: if the settings are wrong or the database belongs to another contract.
        ServiceUnavailableError: if Postgres does not answer.
    """
    if (settings.data_dir / RESTORING).exists() and not may_be_half_restored:
        raise ConfigurationError(
            f"DATA_DIR={settings.data_dir} is half restored; run `selfheal restore FOLDER` with the same backup again"
        )
    contract = load_contract(settings.use_case)
    lease = lease_server(settings)
    try:
        store = open_store(settings, contract, wait_for_database=wait_for_database)
    except BaseException:
        if lease is not None:
            lease.end()
        raise
    return Platform(settings, contract, store, open_registry(settings, contract), server_lease=lease)
