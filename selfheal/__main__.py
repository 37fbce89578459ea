"""The `selfheal` command, and `python -m selfheal`."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Run the command line. A health check is answered without importing it, which takes longer than the check.

    With an `.env`, which the quick check does not read, the command of the same name answers.
    """
    if sys.argv[1:2] == ["probe"] and not Path(".env").exists():
        from selfheal.kit.health_probe import main as probe

        sys.exit(probe(sys.argv[2:], program="selfheal probe"))
    from selfheal.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
