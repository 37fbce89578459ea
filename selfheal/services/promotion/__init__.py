"""Promotion: how a version gets into production and back.

- `final_validation`: the last checks of a model before it serves.
- `going_live`: promotion, rollback and forced promotion; each is one transaction in Postgres.
- `registry_sync`: reconciliation of MLflow's aliases and tags, and of the files of decisions, with Postgres.
- `history`: which version served when.

The rule of probation is in `selfheal.domain.probation`; `selfheal.services.probation` applies it.
"""
