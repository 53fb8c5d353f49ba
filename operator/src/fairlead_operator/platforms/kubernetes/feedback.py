"""What a deployment's servers are told of feedback: the ledger's address, their own keys, what to record."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from fairlead.feedback.kafka import SINK_OWN, KafkaSettingsError, KafkaTarget, checked, loaded
from fairlead.feedback.keys import KeyRing, KeyRingError
from fairlead.feedback.serving import Feedback
from fairlead_operator.api.conditions import ConditionType, Reason
from fairlead_operator.core.desired import Desired
from fairlead_operator.core.observed import Problem
from fairlead_operator.errors import OperatorError
from fairlead_operator.settings import Settings


class KeysUnreadable(OperatorError):
    """A file with keys is not there, or is something else; servers keep what they have."""

    retryable = True


@dataclass(slots=True)
class FeedbackFiles:
    """Reads keys from the operator's files, anew when they change: a mounted Secret is replaced in place."""

    settings: Settings
    _read: dict[Path, tuple[tuple[int, int, int], str]] = field(default_factory=dict)

    def of(self, desired: Desired) -> Feedback | None:
        """Return what servers of a deployment are told; None where there is no ledger, or no keys.

        Raises:
            KeysUnreadable: A file that the settings name cannot be used.
        """
        ledger, keys = desired.ledger or self.settings.ledger_url, self.settings.feedback_keys
        if ledger is None or keys is None:
            return None
        try:
            root = KeyRing.loaded(self._text(keys))
        except KeyRingError as error:
            raise KeysUnreadable(f"--feedback-keys {keys}: {error}; give the ring that the ledger has") from error
        design = desired.design
        return Feedback(
            ledger=ledger.rstrip("/"),
            keys=root.of(f"{desired.namespace}/{desired.name}"),
            api_key=self._secret(self.settings.ledger_server_key) if self._is_own(ledger) else None,
            covariates={design.salt: design.covariate} if design is not None and design.covariate else {},
            kafka=self._kafka() if self._is_own(ledger) else None,
        )

    def operator_key(self) -> str | None:
        """Return the operator's own API key; None for an open ledger.

        Raises:
            KeysUnreadable: The file that the settings name cannot be used.
        """
        return self._secret(self.settings.ledger_api_key)

    def problem(self, desired: Desired) -> Problem | None:
        """Return why an experiment's servers would tell nobody; None if they will, or there is nothing to tell."""
        if not desired.is_judged or (desired.ledger or self.settings.ledger_url) is None:
            return None  # that no ledger is known is told by whoever would ask it
        if self.settings.feedback_keys is not None:
            return None
        message = "the operator has no key ring for prediction tokens; give it --feedback-keys, the ledger's own file"
        return Problem(ConditionType.EXPERIMENT_HEALTHY, Reason.LEDGER_MISSING, message, stops_growth=True)

    def _kafka(self) -> KafkaTarget | None:
        """Return the brokers of the operator's own ledger; None where servers report to it over HTTP."""
        servers, path = self.settings.kafka_bootstrap_servers, self.settings.kafka_config
        if servers is None:
            return None
        try:
            config = {} if path is None else checked(loaded(self._text(path)), SINK_OWN)
        except KafkaSettingsError as error:
            raise KeysUnreadable(f"--kafka-config {path}: {error}") from error
        return KafkaTarget(servers, self.settings.kafka_exposures_topic, dict(config))

    def _is_own(self, ledger: str) -> bool:
        """Return whether a ledger is the operator's own: no other is given a key, for any user may name one."""
        return ledger.rstrip("/") == (self.settings.ledger_url or "").rstrip("/")

    def _secret(self, path: Path | None) -> str | None:
        return self._text(path).strip() or None if path is not None else None

    def _text(self, path: Path) -> str:
        try:
            stat = path.stat()
            version = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            known = self._read.get(path)
            if known is None or known[0] != version:
                known = self._read[path] = (version, path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise KeysUnreadable(f"{path} cannot be read ({type(error).__name__}); mount the Secret there") from error
        return known[1]
