"""Monitoring: what has shifted, what it costs, and the verdict.

    window -> {proxy metrics, drift, performance} -> triage

Pure: frames and records in, records out. Rows of the window come from `selfheal.adapters.postgres.predictions`; report files
are written by `selfheal.services.reports`.
"""
