"""`python -m selfheal` is the `selfheal` command."""

from __future__ import annotations

from selfheal.cli import main

if __name__ == "__main__":
    main()
