"""Wire protocols that other clients speak: Open Inference Protocol v2 (`/v2`) and MLflow's scoring server (`/invocations`).

A request is turned into the rows of `POST /predict/batch` and takes its way from there: one validation, one journal.
"""
