"""Errors, by what can be done about them. Every message names the thing, the value and the remedy."""

from __future__ import annotations


class SelfhealError(Exception):
    """Base of every error the platform raises on purpose."""


class TransientError(SelfhealError):
    """Worth trying again unchanged: the store is restarting, a lock is held."""


class TooManyRequestsError(TransientError):
    """As many requests of a kind are waiting as may wait at the same time."""


class PermanentError(SelfhealError):
    """The same call would fail the same way again: nothing may retry it."""


class ConfigurationError(PermanentError):
    """A setting or a contract is wrong; the process must not start."""


class InvalidDataError(PermanentError):
    """Data from outside breaks the contract. Nothing of it was stored."""


class TrainingFailedError(PermanentError):
    """An estimator cannot be fitted, does not converge, or does not predict numbers. Production is untouched."""


class IntegrityError(PermanentError):
    """Something that must never change has changed: a reference, a model file, a decision."""


class MissingArtifactError(IntegrityError):
    """A file that was stored with a training run is missing."""


class ModelRefusedError(PermanentError):
    """A model version cannot be served: wrong contract, wrong digest, untrusted types, or it does not load."""


class ModelNotExplainableError(PermanentError):
    """A model can be served, but its log-odds are not a sum of one term per feature: there is no exact explanation."""


class NoProductionModelError(TransientError):
    """There is no production version yet: bootstrap first."""


class UnknownVersionError(PermanentError):
    """No such version is registered."""


class PromotionConflictError(PermanentError):
    """The version that a promotion expected to replace is not the one in production."""


class LabelConflictError(PermanentError):
    """A prediction already has another label, and the new one was not sent as a correction."""


class JournalUnavailableError(TransientError):
    """A record could not be made durable. It was not acknowledged; nothing that was acknowledged is lost."""


class ServiceUnavailableError(TransientError):
    """A process or service that this one depends on does not answer."""
