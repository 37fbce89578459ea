"""Errors, grouped by the possible reaction. Every message names the thing, the value and the remedy."""

from __future__ import annotations


class SelfhealError(Exception):
    """Base class of all errors that the platform raises deliberately."""


class TransientError(SelfhealError):
    """The same call may succeed later: the store is restarting, or a lock is held."""


class TooManyRequestsError(TransientError):
    """The limit of waiting requests of this kind is reached."""


class PermanentError(SelfhealError):
    """The same call would fail again in the same way and must not be retried."""


class ConfigurationError(PermanentError):
    """A setting or a contract is wrong; the process must not start."""


class InvalidDataError(PermanentError):
    """External data violates the contract. None of it was stored."""


class UnfitFileError(InvalidDataError):
    """A labelled file has problems. The message has a line for each, so that all can be mended at once."""


class TrainingFailedError(PermanentError):
    """An estimator cannot be fitted, does not converge, or does not predict numbers. Production is untouched."""


class IntegrityError(PermanentError):
    """Something immutable has changed: a reference, a model file or a decision."""


class MissingArtifactError(IntegrityError):
    """A file that was stored with a training run is missing."""


class ModelRefusedError(PermanentError):
    """A model version cannot be served: wrong contract, wrong digest, untrusted types, or it does not load."""


class ModelNotExplainableError(PermanentError):
    """A model can be served, but its log-odds are not a sum of one term per feature: there is no exact explanation."""


class NoProductionModelError(TransientError):
    """No version is in production yet: run the bootstrap first."""


class UnknownVersionError(PermanentError):
    """The version is not registered."""


class UnknownQuarantineError(PermanentError):
    """There is no such quarantine of labels."""


class PromotionConflictError(PermanentError):
    """The version that a promotion expected to replace is not the one in production."""


class LabelConflictError(PermanentError):
    """A prediction already has another label, and the new one was not sent as a correction."""


class JournalUnavailableError(TransientError):
    """A record could not be made durable and was not acknowledged. No acknowledged record is lost."""


class ServiceUnavailableError(TransientError):
    """A process or service that this one depends on does not respond."""
