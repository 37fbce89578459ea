"""Retraining, from conditions to a verdict: conditions -> dataset -> training -> gates.

Pure: frames and records in, records and fitted pipelines out. `selfheal.adapters.mlflow_registry` logs models;
`selfheal.adapters.postgres.decisions` stores decisions.
"""
