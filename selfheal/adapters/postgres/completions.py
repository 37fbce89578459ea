"""Shell completions: the newest versions and open alerts. Best effort: never starts a server, never blocks for long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from selfheal.adapters.postgres.embedded import url_if_running

if TYPE_CHECKING:
    from selfheal.settings import Settings

MAX_ROWS = 50
CONNECT_TIMEOUT_SECONDS = 2  # the shortest that libpq allows
STATEMENT_TIMEOUT_MS = 500

VERSIONS = "SELECT version, stage FROM model_metadata ORDER BY version DESC LIMIT %s"
OPEN_ALERTS = """
    SELECT alert_id, severity || ': ' || replace(kind, '_', ' ') FROM monitoring_alerts
    WHERE resolved_at IS NULL ORDER BY created_at DESC LIMIT %s
"""


def versions(settings: Settings) -> list[tuple[str, str]]:
    """Return the newest registered versions and their stages."""
    return _completions(settings, VERSIONS)


def open_alerts(settings: Settings) -> list[tuple[str, str]]:
    """Return the ids of the newest open alerts, each with its subject."""
    return _completions(settings, OPEN_ALERTS)


def _completions(settings: Settings, query: str) -> list[tuple[str, str]]:
    """Return up to `MAX_ROWS` values with a description; none if the server does not answer at once."""
    import psycopg

    url = _url(settings)
    if url is None:
        return []
    options: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "options": f"-c statement_timeout={STATEMENT_TIMEOUT_MS}",
    }
    try:
        with psycopg.connect(url, **options) as connection:
            rows = connection.execute(query.encode(), (MAX_ROWS,))
            return [(str(value), str(description)) for value, description in rows]
    except psycopg.Error:
        return []


def _url(settings: Settings) -> str | None:
    if settings.has_external_database:
        return settings.external_database_url(settings.mlops_db_name)
    return url_if_running(settings.data_dir / "postgres", settings.mlops_db_name)
