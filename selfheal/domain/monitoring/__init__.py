"""Monitoring: what has shifted, what it costs, and the verdict.

    window -> {proxy metrics, drift, performance} -> triage

Pure: frames and records in, records out. `selfheal.adapters.postgres.predictions` reads the window's rows;
`selfheal.services.reports` writes the report files.
"""
