"""Alembic's entry: it runs on the connection of `selfheal.adapters.postgres.migrate`, inside its transaction."""

from __future__ import annotations

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=context.config.attributes["metadata"],
    transaction_per_migration=False,
)
context.run_migrations()
