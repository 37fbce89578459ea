"""Postgres: the store, named queries (one module per subject), migrations, and the embedded server.

`store.Store` is the handle (engine, contract, tables); `open` opens and prepares it. Invariants are database constraints, in
`tables`.
"""
