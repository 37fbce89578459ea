"""Sensors: monitoring, retraining, probation, registry reconciliation, run status."""
