"""Ingest: the journals, their copy in Postgres, and the alerts when copying fails."""
