"""The logic of the self-healing loop. Imports neither Dagster nor FastAPI.

The flow of data (each arrow is one record of `selfheal.domain.records`):

    POST /predict -> adapters.journal -> prediction_logs (adapters.postgres.ingest) -> domain.monitoring.window
        -> {proxy metrics (SQL), domain.monitoring.drift, domain.monitoring.performance} -> domain.monitoring.triage
        -> domain.retraining.requests -> domain.retraining.conditions -> domain.retraining.dataset
        -> domain.retraining.training -> domain.retraining.gates -> services.promotion.going_live
        -> serving swaps its champion -> the next POST /predict
    POST /labels -> adapters.journal -> label_store -> {performance, training set, domain.probation}

The folders are the layers; each imports only those below it:

    cli         the command and the processes of `selfheal up`; like `serving` and `selfheal_assets` a shell that decides nothing
    simulate    traffic, scenarios and the demo
    services    the stages of the loop on an open platform: load, call the pure rule, record
    adapters    input and output: Postgres, journal, MLflow, files, alert channels
    settings    one frozen `Settings`, passed as an argument
    credit_risk the shipped use case, known by its setting only
    domain      what the loop decides: rows and `now` in, a record out
    kit         errors, ids, durations, atomic files; imports no other package
"""
