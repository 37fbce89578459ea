"""The FastAPI service: it scores, logs, explains, and swaps models. It imports neither Dagster nor Evidently.

The way of a request: `security` (who may call) -> `routes` or `scoring.fast_path` -> `scoring.micro_batcher`
(micro-batching and group commit) -> `selfheal.adapters.journal` -> the answer. Beside it run `champion.follower` (the
version in production becomes the champion), `ingest.worker` (copies the journals to Postgres) and
`alerts.monitor_watchdog`. `app` owns their lifetimes.
"""
