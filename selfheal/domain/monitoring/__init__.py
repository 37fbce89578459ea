"""Looking at the traffic: what has shifted, what it costs, and what to call it.

    window -> {proxy metrics, drift, performance} -> triage

Pure: frames and records in, records out. Only `report` writes files (the HTML a person opens). Querying the window's rows
is `selfheal.adapters.postgres.predictions`' work.
"""
