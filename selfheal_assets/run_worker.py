"""`python -m selfheal_assets.run_worker PARENT LOCK ARGUMENTS`: execute one run; started by `selfheal_assets.run_launcher`.

PARENT is the process that started this one, LOCK the descriptor of the run's lock (`selfheal_assets.run_owners`), which is open
as long as this process lives, ARGUMENTS what `dagster api execute_run` expects. SIGTERM ends the run: as CANCELED if that was
asked for, else as interrupted.
"""

from __future__ import annotations

import os
import sys

from selfheal.kit.parent_death import end_with_parent


def main(parent_pid: int, lock: int, arguments: str) -> None:
    """Execute the run, unless the parent has died; a run whose steps fail is no error here."""
    end_with_parent(parent_pid)
    os.set_inheritable(lock, False)  # what this process starts does not execute the run
    from dagster._cli.api import api_cli

    api_cli.main(["execute_run", arguments], standalone_mode=False)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
