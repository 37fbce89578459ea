"""References are read and prepared once per content, and few of them are retained."""

from __future__ import annotations

import pandas as pd
import pytest

from selfheal.services.platform import Platform
from selfheal.services.prepared_references import MAX_REFERENCES, PreparedReferences
from selfheal.services.tick import collect, compare, measure
from tests.traffic import serve, toy_rows


def test_the_references_used_last_are_retained() -> None:
    cache, read = PreparedReferences(), []

    def rows_of(key: str) -> pd.DataFrame:
        read.append(key)
        return pd.DataFrame({"x": [1.0]})

    keys = [f"v{number}" for number in range(MAX_REFERENCES + 1)]
    for key in [*keys[:MAX_REFERENCES], keys[0], keys[-1], keys[0]]:
        cache.get(key, lambda key=key: rows_of(key))
    assert read == keys, "the first one was used again before another one came"
    cache.get(keys[1], lambda: rows_of(keys[1]))
    assert read == [*keys, keys[1]]


@pytest.mark.integration
def test_many_ticks_read_the_champions_reference_once(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = serve(platform, toy_rows(300))
    proxy = collect(platform, sent.last_at)
    assert proxy is not None
    read, reference = [], type(platform.registry).reference
    monkeypatch.setattr(
        type(platform.registry), "reference", lambda self, model: read.append(model.version) or reference(self, model)
    )
    reports = [(compare(platform, proxy.window), measure(platform, proxy.window)) for _ in range(2)]
    assert reports[0] == reports[1]
    assert len(read) == 1
