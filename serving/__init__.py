"""The FastAPI service: score, log, explain, swap. Imports neither Dagster nor Evidently.

A request travels: `routes.predict` (validate, call, answer) -> `scoring` (requests that arrive together are scored and made
durable together) -> `selfheal.adapters.journal`. Beside it run `follower` (keeps the `champion` the version in production) and
`sink` (copies the journal to Postgres). `app` owns what has a lifetime.
"""
