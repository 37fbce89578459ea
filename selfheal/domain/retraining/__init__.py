"""Retraining, from conditions to a verdict: conditions -> dataset -> training -> gates.

Pure: frames and records in, records and fitted pipelines out. Logging a model is `selfheal.adapters.mlflow_registry`'s work, keeping a
decision `selfheal.adapters.postgres.decisions`'.
"""
