"""The logic of the self-healing loop. Imports neither Dagster nor FastAPI.

The map, in the order the data travels (each arrow is one record type of `selfheal.records`):

    POST /predict -> journal -> store.prediction_logs -> monitoring.window
        -> monitoring.{proxy, drift, performance} -> monitoring.triage -> retraining.conditions
        -> retraining.dataset -> retraining.training -> retraining.gates -> promotion -> registry
        -> serving swaps its champion -> the next POST /predict
    POST /labels -> journal -> store.label_store -> {performance, training set, probation}

Deciding is pure (`monitoring`, `retraining.gates`, `retraining.conditions`, the rules of `promotion`): rows and `now` go
in, a record comes out. Input and output live in `journal`, `store`, `registry` and `notify`. `selfheal_assets` (Dagster)
and `serving` (FastAPI) are shells around this package and never import each other.
"""
