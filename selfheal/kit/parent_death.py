"""Parent-death signal (PR_SET_PDEATHSIG of Linux): a process ends when its parent does, however the parent died."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""From <sys/prctl.h>; Python has no name for it."""

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
"""Loaded here: between fork and exec a library should not be."""


def end_with_parent(parent_pid: int, signum: signal.Signals = signal.SIGTERM) -> None:
    """Have the kernel send `signum` to this process once the thread that started it has ended.

    Does nothing on other systems than Linux. What this process starts itself is not affected.

    Args:
        parent_pid: the parent as it knows itself; if it has died before this call, the signal is sent at once.
    """
    if _LIBC is None:
        return
    _LIBC.prctl(PR_SET_PDEATHSIG, int(signum))
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signum)
