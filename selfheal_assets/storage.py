"""Dagster's own storage in the platform's Postgres, so that `dagster dev` works without configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dagster_postgres import DagsterPostgresStorage

if TYPE_CHECKING:
    from dagster._serdes import ConfigurableClassData  # Dagster exports no public name


class SelfhealPostgresStorage(DagsterPostgresStorage):
    """`DagsterPostgresStorage` whose URL comes from the platform's settings; starts the embedded server if necessary."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Return the schema of `storage.config` in dagster.yaml: there is nothing to configure."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> SelfhealPostgresStorage:
        """Return the storage for the current settings; create its database if it is missing.

        Raises:
            ConfigurationError: if the settings are wrong.
            ServiceUnavailableError: if the server does not respond.
        """
        from selfheal.adapters.postgres.store import DAGSTER_DATABASE, library_url
        from selfheal.kit.private_files import restrict_new_files
        from selfheal.settings import load_settings

        settings = load_settings()
        restrict_new_files(settings.umask)  # every process of Dagster comes by here first, however it was started
        url = library_url(settings, DAGSTER_DATABASE, _make_tables)
        return cls(url, should_autocreate_tables=True, inst_data=inst_data)


def _make_tables(url: str) -> None:
    """Make Dagster's tables in a new database. Dagster itself does so in many steps, and never finishes what was begun."""
    storage = DagsterPostgresStorage(url, should_autocreate_tables=True)
    for part in (storage.run_storage, storage.event_log_storage, storage.schedule_storage):
        part.dispose()
