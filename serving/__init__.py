"""The FastAPI service: it scores, logs, explains, and swaps models. It imports neither Dagster nor Evidently.

The path of a request: `security` (who may call) -> `routes` or `scoring.fast_path` -> `scoring.micro_batcher`
(micro-batching and group commit) -> `selfheal.adapters.journal` -> the answer. In the background run `champion.follower`
(makes the version in production the champion), `ingest.worker` (copies the journals to Postgres) and
`alerts.monitor_watchdog`. `app` owns their lifetimes.
"""
