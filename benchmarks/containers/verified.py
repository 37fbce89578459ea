"""`python -m benchmarks.containers.verified FOLDER`, in a container: Postgres and journals against what clients were told.

It prints one line of JSON. FOLDER has `ledger.json` (`write_ledger`), written where the clients are.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.crash.kept_word import logged_labels, logged_rows, logged_twice, n_duplicated, n_lost, n_wrong
from benchmarks.witness import Acknowledged, Ledger
from selfheal.adapters.journal import LABEL_JOURNAL, prediction_journal
from selfheal.adapters.postgres.ingest import ingest
from selfheal.services.platform import Platform, open_platform
from selfheal.services.verification.run import verify_everything
from selfheal.settings import load_settings

NAME = "ledger.json"


def write_ledger(ledger: Ledger, folder: Path) -> None:
    """Write what clients were told; numbers to their last bit."""
    content = {
        "rows": list(ledger.rows),
        "acknowledged": [asdict(one) for one in ledger.acknowledged],
        "labels": ledger.labels,
    }
    (folder / NAME).write_text(json.dumps(content))


def read_ledger(folder: Path) -> Ledger:
    """Return what `write_ledger` wrote."""
    content = json.loads((folder / NAME).read_text())
    acknowledged = [Acknowledged(**one) for one in content["acknowledged"]]
    return Ledger(content["rows"], acknowledged=acknowledged, labels=content["labels"])


def verified(platform: Platform, ledger: Ledger) -> dict[str, Any]:
    """Copy what is left in the journals, and compare: counts of what must not be, and the findings of `verify`."""
    data_dir = platform.settings.data_dir
    for journal in (prediction_journal(platform.contract), LABEL_JOURNAL):
        ingest(platform.store, journal, data_dir)
    logged, labels = logged_rows(platform), logged_labels(platform)
    return {
        "acknowledged": len(ledger.acknowledged),
        "labels_acknowledged": len(ledger.labels),
        "logged": len(logged),
        "lost": n_lost(ledger.acknowledged, logged),
        "labels_lost": sum(labels.get(one) is None for one in ledger.labels),
        "duplicated": n_duplicated(logged),
        "wrong_values": n_wrong(platform, ledger, logged, logged_twice(platform, [data_dir]))
        + sum(labels.get(one, label) != label for one, label in ledger.labels.items()),
        "verify": [sentence for result in verify_everything(platform).results for sentence in result.findings],
    }


def main(folder: str) -> None:
    """Print what is found as one line."""
    platform = open_platform(load_settings())
    try:
        print(json.dumps(verified(platform, read_ledger(Path(folder)))))
    finally:
        platform.close()


if __name__ == "__main__":
    main(sys.argv[1])
