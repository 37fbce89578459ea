"""The platform in containers under traffic: does it go on by itself, and is what was acknowledged lost or doubled?

    make image
    python -m benchmarks.containers [--json containers.json] [--quick] [--scenario kills ...]

A Compose project of its own with two containers of the API, in this order:

- `kills`: SIGKILL to the main process of one container after the other, by its number on the host: the engine starts again
  what died, not what it was told to kill.
- `postgres`: Postgres is restarted.
- `daemon`: Dagster's daemon is stopped for ten minutes.
- `upgrade`: an image with one more migration takes the place of the old one, the API's containers one by one.
- `restore`: the volumes are copied to another project, whose containers have other host names.

After each, the clients' answers are compared with Postgres, and `selfheal verify` has the last word. It needs an engine on
this machine whose processes it may signal (root).
"""
