"""Ingest: the journals, their copy in Postgres, and alerts if copying fails."""
