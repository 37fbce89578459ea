"""Observability of the running service: metrics for Prometheus, the live feed, and the dashboard's data."""
