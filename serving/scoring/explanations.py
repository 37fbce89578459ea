"""Adds to answers why they are what they are. What takes the score apart is `selfheal.domain.model.explanation`."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal.domain.model.explanation import Baseline, Explainer, build_explainer
from selfheal.kit.errors import ModelNotExplainableError
from serving.schemas.explanations import plain_explanations

if TYPE_CHECKING:
    from selfheal.domain.contract import FloatArray
    from selfheal.services.platform import Platform
    from serving.champion.holder import Champion, ChampionHolder
    from serving.scoring.micro_batcher import Answer, Row

logger = logging.getLogger(__name__)

NOT_FOR_THIS_ROW = (
    "this row has no exact explanation: it holds a value that the model's preprocessing treats in its own way"
)


ASK_AGAIN_SECONDS = 60.0
"""Before a reference that could not be read is asked for again."""


class ExplanationService:
    """Explains answers of the champion. Its explainer is made when the first one is asked for, and kept."""

    def __init__(self, platform: Platform, holder: ChampionHolder) -> None:
        self._platform = platform
        self._holder = holder
        self._lock = threading.Lock()
        self._made: tuple[int, Explainer | str] | None = None
        self._made_at = 0.0

    async def add(self, rows: Sequence[Row], answers: Sequence[Answer]) -> None:
        """Sets `explanation` in each answer, or `explanation_unavailable` to a sentence that says why there is none."""
        await asyncio.to_thread(self._add, rows, answers)

    def _add(self, rows: Sequence[Row], answers: Sequence[Answer]) -> None:
        champion = self._holder.current
        current = None if champion is None else champion.version.version
        mine = [which for which, answer in enumerate(answers) if answer["model_version"] == current]
        for answer in answers:
            answer["explanation"] = None
            answer["explanation_unavailable"] = f"version {answer['model_version']} is not loaded any more"
        if champion is None or not mine:
            return
        explainer = self._explainer(champion)
        if isinstance(explainer, str):
            found: list[dict[str, Any] | None] = [None] * len(mine)
            reason = explainer
        else:
            found = plain_explanations(explainer.explain(self._matrix([rows[which] for which in mine])))
            reason = NOT_FOR_THIS_ROW
        for which, explanation in zip(mine, found, strict=True):
            answers[which]["explanation"] = explanation
            answers[which]["explanation_unavailable"] = reason if explanation is None else None

    def _matrix(self, rows: Sequence[Row]) -> FloatArray:
        contract = self._platform.contract
        inputs = np.array([row.values for row in rows], dtype=np.float64)
        return contract.matrix(dict(zip(contract.input_names, inputs.T, strict=True)))

    def _explainer(self, champion: Champion) -> Explainer | str:
        with self._lock:
            if self._made is None or self._made[0] != champion.version.version or self._may_be_better():
                self._made = champion.version.version, self._build(champion)
                self._made_at = time.monotonic()
            return self._made[1]

    def _may_be_better(self) -> bool:
        """Whether the stand-in serves and the version's own reference has not been asked for lately."""
        assert self._made is not None
        explainer = self._made[1]
        is_stand_in = isinstance(explainer, Explainer) and explainer.baseline is Baseline.STAND_IN
        return is_stand_in and time.monotonic() - self._made_at > ASK_AGAIN_SECONDS

    def _build(self, champion: Champion) -> Explainer | str:
        try:
            return build_explainer(champion.pipeline, self._platform.contract, self._reference(champion))
        except ModelNotExplainableError as error:
            return str(error)

    def _reference(self, champion: Champion) -> FloatArray | None:
        """The rows frozen with the version; None if they are not on this machine and MLflow does not answer."""
        names = list(self._platform.contract.feature_names)
        try:
            return self._platform.registry.reference(champion.version)[names].to_numpy(dtype=np.float64)
        except Exception as error:  # MLflow, the network, the file: the stand-in serves, and the answer says so
            logger.warning("the reference of version %d cannot be read: %s", champion.version.version, error)
            return None
