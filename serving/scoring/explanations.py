"""Explanations of predictions, computed by `selfheal.domain.model.explanation`."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from selfheal.domain.model.explanation import Baseline, Explainer, build_explainer
from selfheal.kit.errors import ModelNotExplainableError
from serving.schemas.explanations import plain_explanations
from serving.scoring.micro_batcher import input_columns

if TYPE_CHECKING:
    from selfheal.domain.contract import FloatArray
    from selfheal.services.platform import Platform
    from serving.champion.holder import Champion, ChampionHolder
    from serving.scoring.micro_batcher import Answer, Row

logger = logging.getLogger(__name__)

NOT_FOR_THIS_ROW = (
    "this row has no exact explanation: it contains a value that the model's preprocessing treats separately"
)

REFERENCE_RETRY_SECONDS = 60.0
"""Pause before an unreadable reference is tried again."""


class ExplanationService:
    """Explains predictions of the champion. Its explainer is built with the first request and cached."""

    def __init__(self, platform: Platform, holder: ChampionHolder) -> None:
        self._platform = platform
        self._holder = holder
        self._lock = threading.Lock()
        self._cached: tuple[int, Explainer | str] | None = None
        """The version, and its explainer or the reason why there is none."""
        self._cached_at = 0.0

    async def add(self, rows: Sequence[Row], answers: Sequence[Answer]) -> None:
        """Set `explanation` in each answer, or `explanation_unavailable` to a sentence that says why there is none."""
        await asyncio.to_thread(self._add, rows, answers)

    def _add(self, rows: Sequence[Row], answers: Sequence[Answer]) -> None:
        champion = self._holder.current
        current = None if champion is None else champion.version.version
        mine = [which for which, answer in enumerate(answers) if answer["model_version"] == current]
        for answer in answers:
            answer["explanation"] = None
            answer["explanation_unavailable"] = f"version {answer['model_version']} is no longer loaded"
        if champion is None or not mine:
            return
        explainer = self._explainer(champion)
        if isinstance(explainer, str):
            found: list[dict[str, Any] | None] = [None] * len(mine)
            reason = explainer
        else:
            found = self._explained(explainer, [rows[which] for which in mine])
            reason = NOT_FOR_THIS_ROW
        for which, explanation in zip(mine, found, strict=True):
            answers[which]["explanation"] = explanation
            answers[which]["explanation_unavailable"] = reason if explanation is None else None

    def _explained(self, explainer: Explainer, rows: Sequence[Row]) -> list[dict[str, Any] | None]:
        """Return each row's explanation; None for one that an earlier release has answered although no estimator takes it."""
        matrix, contract = self._matrix(rows), self._platform.contract
        usable = contract.derived_values.usable(contract.derived_part(matrix))
        explained = iter(plain_explanations(explainer.explain(matrix[usable])) if usable.any() else ())
        return [next(explained) if is_usable else None for is_usable in usable]

    def _matrix(self, rows: Sequence[Row]) -> FloatArray:
        contract = self._platform.contract
        return contract.matrix(input_columns(contract, rows))

    def _explainer(self, champion: Champion) -> Explainer | str:
        with self._lock:
            if self._cached is None or self._cached[0] != champion.version.version or self._should_rebuild():
                self._cached = champion.version.version, self._build(champion)
                self._cached_at = time.monotonic()
            return self._cached[1]

    def _should_rebuild(self) -> bool:
        """Return whether stand-in rows are in use and the version's own reference is due to be tried again."""
        assert self._cached is not None
        explainer = self._cached[1]
        is_stand_in = isinstance(explainer, Explainer) and explainer.baseline is Baseline.STAND_IN
        return is_stand_in and time.monotonic() - self._cached_at > REFERENCE_RETRY_SECONDS

    def _build(self, champion: Champion) -> Explainer | str:
        try:
            return build_explainer(champion.pipeline, self._platform.contract, self._reference(champion))
        except ModelNotExplainableError as error:
            return str(error)

    def _reference(self, champion: Champion) -> FloatArray | None:
        """Return the rows frozen with the version; None if they are not on this machine and MLflow is unavailable."""
        try:
            return self._platform.contract.matrix_of(self._platform.registry.reference(champion.version))
        except (
            Exception
        ) as error:  # MLflow, the network or the file: stand-in rows are used, and the explanation says so
            logger.warning(
                "the reference data of version %d cannot be read, so explanations use stand-in rows: %s",
                champion.version.version,
                error,
            )
            return None
