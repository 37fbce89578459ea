"""`python -m serving`: the API under uvicorn, on API_HOST and API_PORT."""

from __future__ import annotations

import sys

import uvicorn

from selfheal.errors import SelfhealError
from selfheal.settings import load_settings


def main() -> int:
    """Runs until stopped. A wrong setting is one line and exit code 2."""
    try:
        settings = load_settings()
    except SelfhealError as error:
        print(f"selfheal: {error}", file=sys.stderr)  # noqa: T201  (the command's own output)
        return 2
    uvicorn.run(
        "serving.app:create_app",
        factory=True,
        host=settings.api_host,
        port=settings.api_port,
        log_level=settings.log_level.lower(),
        access_log=False,
        timeout_graceful_shutdown=10,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
