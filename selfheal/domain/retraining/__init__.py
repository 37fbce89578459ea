"""From "something is wrong" to "this model is better, or not": conditions -> dataset -> training -> gates.

Pure: frames and records in, records and fitted pipelines out. Logging a model is `selfheal.adapters.mlflow_registry`'s work, keeping a
decision `selfheal.adapters.postgres.decisions`'.
"""
