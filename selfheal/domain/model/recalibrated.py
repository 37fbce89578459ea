"""A fitted classifier with a correction of its probabilities: what a recalibration of any estimator is stored and served as.

It is of this project, and not scikit-learn's `CalibratedClassifierCV`, because that one has no correction of log-odds for an
estimator without a decision function. Model files may hold it (`selfheal.domain.model.file`): it only stores numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from selfheal.domain.model.correction import Correction

if TYPE_CHECKING:
    from selfheal.domain.contract import FloatArray


class RecalibratedClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A fitted classifier and the correction of its probabilities.

    Args:
        classifier: of two classes, fitted; any pipeline.
        intercept: of the `Correction`, as are the next two.
        of_event: factor of ln p.
        of_other: factor of -ln(1 - p).
    """

    def __init__(self, classifier: Any, intercept: float = 0.0, of_event: float = 1.0, of_other: float = 1.0) -> None:
        self.classifier = classifier
        self.intercept = intercept
        self.of_event = of_event
        self.of_other = of_other

    @property
    def correction(self) -> Correction:
        """Return the correction."""
        return Correction(self.intercept, self.of_event, self.of_other)

    @property
    def classes_(self) -> Any:
        """Return the classes of the classifier."""
        return self.classifier.classes_

    @property
    def n_features_in_(self) -> int:
        """Return the number of features of the classifier."""
        return int(self.classifier.n_features_in_)

    def __sklearn_is_fitted__(self) -> bool:
        """Return True: it is made of what is fitted."""
        return True

    def predict_proba(self, x: Any) -> FloatArray:
        """Return the probabilities of both classes, shape (n, 2)."""
        corrected = self.correction(np.asarray(self.classifier.predict_proba(x), dtype=np.float64)[:, 1])
        return np.column_stack([1 - corrected, corrected])

    def predict(self, x: Any) -> Any:
        """Return the more probable class of each row, shape (n,)."""
        return self.classes_[(self.predict_proba(x)[:, 1] >= 0.5).astype(np.int64)]
