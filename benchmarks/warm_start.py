"""API processes whose imports are done: `python -m benchmarks.warm_start`, used by `benchmarks.crash`.

A start costs seconds of CPU, nearly all of it for imports, which this process does once. Each line of JSON on stdin is an
environment, for which it forks a process that continues exactly as `python -m serving` does, and prints its process id.
"""

from __future__ import annotations

import json
import os
import signal
import sys

import sklearn.linear_model  # noqa: F401
import skops.io  # noqa: F401

import serving.asgi
from serving.__main__ import main


def serve(environment: dict[str, str]) -> int:
    """Serve in the forked process, in a session of its own, with the parent's log."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    os.environ.update(environment)
    return main()


if __name__ == "__main__":
    assert serving.asgi
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the children
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os._exit(serve(json.loads(line)))
        print(pid, flush=True)
