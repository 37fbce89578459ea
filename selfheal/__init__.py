"""The logic of the self-healing loop. Imports neither Dagster nor FastAPI.

The map, in the order the data travels (each arrow is one record type of `selfheal.domain.records.monitoring`):

    POST /predict -> journal -> store.prediction_logs -> monitoring.window
        -> {proxy metrics (SQL), monitoring.drift, monitoring.performance} -> monitoring.triage
        -> retraining.requests -> retraining.conditions
        -> retraining.dataset -> retraining.training -> retraining.gates -> promotion.going_live -> registry
        -> serving swaps its champion -> the next POST /predict
    POST /labels -> journal -> store.label_store -> {performance, training set, promotion.probation}

`stages` walks this map on an open `platform` (settings, contract, store, registry): load, call the pure rule, keep. The
shells and the command line (`cli`) call it and decide nothing. `supervise` runs the processes of `selfheal up`, `simulate`
sends traffic and watches.

Deciding is pure (`monitoring`, `retraining`, `promotion.probation`): rows and `now` go in, a record comes out. Input and output
live in `journal`, `store`, `registry`, `decision_log` and `alerting`. A model as a file is `model`'s; whether what is kept of the past
still says what it said is `verification`'s. `selfheal_assets` (Dagster) and `serving` (FastAPI) are shells around this package and
never import each other.
"""
