"""Fill what is bounded in the API's memory, so that what grows afterwards is a leak.

At the pace of the soak's clients the API remembers the answers to 50,000 ids only after four hours, and 100,000 labels only
after seven: until then its memory grows as it should, by some 20 MB an hour. Here as many predictions with ids of their own
are sent in batches, and labelled. Measured: from 285 to 406 MiB while 100,000 are sent (10 s), and 0.3 MiB more with the next
70,000 requests.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import uuid4

import httpx

from benchmarks.witness import Acknowledged, Ledger, source_of
from serving.ingest.labels import REMEMBERED_LABELS
from serving.scoring.idempotency import MAX_REMEMBERED

N_TO_FILL = max(REMEMBERED_LABELS, MAX_REMEMBERED)
BATCH_ROWS = 500
MAX_SECONDS = 900.0
RETRY_PAUSE_SECONDS = 1.0
FIRST_NUMBER = 10**9
"""Of the rows: their `request_source` is no client's."""


class NotFilledError(Exception):
    """The API refused, or did not answer in time."""


def fill(address: str, ledger: Ledger, n: int = N_TO_FILL) -> Ledger:
    """Send `n` predictions, each with an id of its own, and their labels; return what was acknowledged.

    Args:
        address: of the API, as `http://127.0.0.1:8000`.
        ledger: whose rows are sent. It is not written to: its clients go on meanwhile.
        n: number of predictions.

    Raises:
        NotFilledError: if the API refuses a batch, or does not answer in time.
    """
    filler = Ledger(ledger.rows, ledger.true_labels, n_asked_rows=FIRST_NUMBER)
    deadline = time.monotonic() + MAX_SECONDS
    with httpx.Client(base_url=address, timeout=60) as client:
        for numbers in _batches(n):
            rows = [
                filler.row(one) | {"request_source": source_of(one), "prediction_id": str(uuid4())} for one in numbers
            ]
            answers = _post(client, "/predict/batch", {"instances": rows}, deadline)["predictions"]
            acknowledged = [
                Acknowledged(
                    number,
                    one["prediction_id"],
                    one["prediction"],
                    one["probability"],
                    one["threshold"],
                    one["model_version"],
                )
                for number, one in zip(numbers, answers, strict=True)
            ]
            filler.acknowledged += acknowledged
            labels = _labels(filler, acknowledged)
            _post(client, "/labels", {"labels": labels}, deadline)
            filler.labels |= {one["prediction_id"]: one["true_label"] for one in labels}
    return filler


def _batches(n: int) -> Iterator[range]:
    for start in range(FIRST_NUMBER, FIRST_NUMBER + n, BATCH_ROWS):
        yield range(start, min(start + BATCH_ROWS, FIRST_NUMBER + n))


def _labels(ledger: Ledger, acknowledged: Sequence[Acknowledged]) -> list[dict[str, Any]]:
    return [{"prediction_id": one.prediction_id, "true_label": ledger.true_label(one.number)} for one in acknowledged]


def _post(client: httpx.Client, path: str, body: dict[str, Any], deadline: float) -> dict[str, Any]:
    """Send until it is answered: the ids make that safe."""
    said = "it did not answer"
    while time.monotonic() < deadline:
        try:
            answer = client.post(path, json=body)
        except httpx.TransportError as error:
            said = str(error)
        else:
            if answer.status_code == 200:
                found: dict[str, Any] = answer.json()
                return found
            said = f"{answer.status_code}: {answer.text[:200]}"
            if answer.status_code < 500:
                break
        time.sleep(RETRY_PAUSE_SECONDS)
    raise NotFilledError(f"POST {path}: {said}")
