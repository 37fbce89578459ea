"""Bounded access to Postgres from the event loop: a bulkhead for queries and one for commands."""
