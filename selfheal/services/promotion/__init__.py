"""Promotion: how a version gets into production and back.

- `final_validation`: the last checks of a model before it answers.
- `going_live`: promotion, rollback and promotion by force; one event in Postgres.
- `registry_sync`: reconciliation of MLflow's aliases and tags, and of the files of decisions, with Postgres.
- `history`: which version served when.

Its rule of probation is `selfheal.domain.probation`'s; watching a version is `selfheal.services.probation`'s.
"""
