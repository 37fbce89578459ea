"""The references of the versions that were compared with last, prepared once for all ticks of this process."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import TYPE_CHECKING

from selfheal.domain.clusters import Clusters
from selfheal.domain.monitoring.prepared_rows import PreparedRows

if TYPE_CHECKING:
    import pandas as pd

MAX_REFERENCES = 2
"""The champion's and, around a promotion, its predecessor's: a few MB each."""


class PreparedReferences:
    """A small cache of prepared rows by their content; it may be used from several threads."""

    def __init__(self) -> None:
        self._prepared: OrderedDict[Hashable, PreparedRows] = OrderedDict()
        self._lock = Lock()

    def get(
        self,
        key: Hashable,
        read: Callable[[], pd.DataFrame],
        clusters_of: Callable[[pd.DataFrame], Clusters] = lambda _: None,
    ) -> PreparedRows:
        """Return the prepared rows of this key, which names their content; read them if they are not there."""
        with self._lock:
            if key in self._prepared:
                self._prepared.move_to_end(key)
                return self._prepared[key]
        found = read()
        rows = PreparedRows(found, clusters_of(found))
        with self._lock:
            self._prepared[key] = rows
            while len(self._prepared) > MAX_REFERENCES:
                self._prepared.popitem(last=False)
        return rows
