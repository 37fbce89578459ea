"""What is in production, how it gets there, and how it is watched.

- `final_validation`: the last look at a model before it answers.
- `going_live`: promotion, rollback and promotion by force; one event in Postgres.
- `projections`: what follows Postgres: MLflow's aliases and tags, the files of decisions.
- `probation`: the rule by which the version that was replaced watches the new one (pure).
- `history`: what served when.
"""
