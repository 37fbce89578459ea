"""Input and output: Postgres, journal, MLflow, model cache, alert channels, decision files, data sets."""
