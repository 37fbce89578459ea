"""The API on a disk that fails once: `python -m benchmarks.failing_disk N_SYNCS REPORT`, started by `benchmarks.crash`.

The first N_SYNCS calls of fdatasync succeed. The next one on a file of predictions raises EIO, and the data that it should have
written is lost, as may happen to pages that a kernel could not write. A later call on the same descriptor would succeed although
data is lost, so it must not be made: REPORT lists each such call.
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
        """Sync, fail once when the count is used up, and report every later call on the same descriptor."""
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
    """Return whether a descriptor is of a file of the prediction journal."""
    return Path(f"/proc/self/fd/{descriptor}").readlink().parent.name == "predictions"


if __name__ == "__main__":
    os.fdatasync = FailingDisk(int(sys.argv[1]), Path(sys.argv[2])).fdatasync  # type: ignore[assignment]
    sys.exit(main())
