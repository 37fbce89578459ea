"""API processes that have their imports behind them: `python -m benchmarks.warm_start`, used by `benchmarks.crash`.

A start costs seconds of CPU, nearly all of it imports. Here they are done once; then each line of JSON on stdin, an
environment, forks a process that goes on from there exactly as `python -m serving` does, and its number is printed.
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
    """In the forked process: leads a session of its own, and logs where the parent does."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    os.environ.update(environment)
    return main()


if __name__ == "__main__":
    assert serving.asgi
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries them
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os._exit(serve(json.loads(line)))
        print(pid, flush=True)
