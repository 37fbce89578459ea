"""The API on a disk that fails once: `python -m benchmarks.failing_disk N_SYNCS REPORT`, started by `benchmarks.crash`.

The first N_SYNCS calls of fdatasync work. The next one on a file of predictions raises EIO, and what it should have brought to disk is gone, as the
pages that a kernel could not write may be. A later call on the same descriptor would succeed and prove nothing, which is
the trap: REPORT names each one that is made.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

from serving.__main__ import main

_fdatasync = os.fdatasync


class FailingDisk:
    """Stands in for `os.fdatasync`."""

    def __init__(self, n_syncs: int, report: Path) -> None:
        self._n_left = n_syncs
        self._report = report
        self._synced_bytes: dict[int, int] = {}
        self._failed: int | None = None

    def fdatasync(self, descriptor: int) -> None:
        if descriptor == self._failed:
            with self._report.open("a") as file:
                file.write(f"fdatasync was called again on descriptor {descriptor}\n")
        if (
            self._failed is None
            and self._n_left <= 0
            and descriptor in self._synced_bytes
            and is_prediction(descriptor)
        ):
            self._failed = descriptor
            os.ftruncate(descriptor, self._synced_bytes[descriptor])
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._n_left -= 1
        _fdatasync(descriptor)
        self._synced_bytes[descriptor] = os.fstat(descriptor).st_size


def is_prediction(descriptor: int) -> bool:
    return Path(f"/proc/self/fd/{descriptor}").readlink().parent.name == "predictions"


if __name__ == "__main__":
    os.fdatasync = FailingDisk(int(sys.argv[1]), Path(sys.argv[2])).fdatasync  # type: ignore[assignment]
    sys.exit(main())
