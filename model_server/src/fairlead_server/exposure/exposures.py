"""What a request's answer owes to an experiment: a token for the client, a line in the tally for the ledger."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fairlead.clock import Clock
from fairlead.feedback.keys import SigningKey
from fairlead.feedback.messages import Arm
from fairlead.feedback.serving import Feedback
from fairlead.feedback.token import MOST_OUTPUTS, NONCE_BYTES, Signer
from fairlead.serving import ExperimentCounts
from fairlead_server.errors import FeatureRejected, InferenceFailed, RequestError
from fairlead_server.exposure.experiment import ExperimentReader, Judgement, Outcome
from fairlead_server.exposure.routes import Headers, KnownRoute
from fairlead_server.exposure.tally import Tally
from fairlead_server.metrics import Count, ModelMetrics
from fairlead_server.predict.joint import Part, float32_of
from fairlead_server.predict.request import PredictResponse

_MOST_SIGNERS = 256
_Columns = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposures:
    """Judges the requests of one model, once they are answered."""

    reader: ExperimentReader
    feedback: Callable[[], Feedback | None]
    """What the server is told now."""
    tally: Tally
    output: str | None
    """Output that tokens carry; None for a model that answers no number."""
    clock: Clock
    metrics: ModelMetrics
    nonce: Callable[[int], bytes]
    """Gives so many random bytes."""
    tokens: Count = field(init=False)
    """How many tokens were minted."""
    _signers: dict[bytes, tuple[SigningKey, Signer]] = field(init=False, default_factory=dict)
    """By context."""

    def __post_init__(self) -> None:
        """Count where the metrics do."""
        object.__setattr__(self, "tokens", self.metrics.tokens)

    @property
    def counts(self) -> ExperimentCounts:
        """How many requests came to what, since the start."""
        return self.reader.counts

    def answered(self, headers: Headers, response: PredictResponse, latency_us: int) -> bytes | None:
        """Do what :meth:`settled` does, for a response."""
        return self.settled(headers, response.outputs, response.features, latency_us, degraded=response.degraded)

    def settled(
        self, headers: Headers, outputs: _Columns, features: _Columns, latency_us: int, *, degraded: bool
    ) -> bytes | None:
        """Count a request that was answered with a prediction, and return its token.

        Args:
            headers: Of the request; see ``ExperimentReader.judge``. May be empty if no experiment is named in them.
            outputs: What was predicted.
            features: What the model was fed, by input name.
            latency_us: From the request's last byte until now.
            degraded: Whether any feature was replaced because the store failed.

        Returns:
            The prediction token, ASCII; None unless the request is exposed, and the server is told what to sign with.
        """
        feedback = self.feedback()
        judgement = self.reader.judge(headers, feedback.keys if feedback else None)
        self.reader.count(judgement)
        if feedback is None:
            return None
        at_us = self.clock.now_us()
        known, unit = judgement.known, judgement.unit
        # A unit that was here since the last report is exposed and has met its arm: so it is for nearly all requests.
        again = (
            not degraded and known is not None and self.tally.add_again(judgement.place, known.block, at_us, latency_us)
        )
        if not again:
            met = self._met(judgement)
            if met is None:
                return None
            known, arm, unit = met
            self.tally.add(
                arm,
                known.context,
                unit,
                at_us=at_us,
                latency_us=latency_us,
                failure=None,
                degraded=degraded,
                covariate=lambda: _covariate(feedback.covariates.get(arm.salt), features),
                places=(judgement.place, known.block),
            )
        if known is None or unit is None:  # pragma: no cover -- nobody is added then
            return None
        self.tokens.value += 1
        rows, floats = _answered(outputs, self.output)
        signer = self._signer(feedback.keys.signing[0], known.context)
        return signer.mint(unit, at_us, rows, floats, self.nonce(NONCE_BYTES))

    def count_unexposed(self) -> None:
        """Count a request that was answered with a prediction, and names no experiment."""
        self.reader.count_nothing()

    def failed(self, headers: Headers, error: Exception, latency_us: int) -> None:
        """Count a request that was not answered with a prediction.

        What is the client's own fault is none of the experiment's. A rejected feature is no error, but the unit has
        met its arm; everything else is an error of the arm.

        Args:
            headers: Of the request, as for :meth:`answered`.
            error: What it is answered with.
            latency_us: From the request's last byte until now.
        """
        known_error = error if isinstance(error, RequestError) else InferenceFailed(type(error).__name__)
        failure = known_error.failure
        feedback = self.feedback()
        if feedback is None or not (failure or isinstance(known_error, FeatureRejected)):
            return
        met = self._met(self.reader.judge(headers, feedback.keys))
        if met is None:
            return
        known, arm, unit = met
        self.tally.add(
            arm,
            known.context,
            unit,
            at_us=self.clock.now_us(),
            latency_us=latency_us,
            failure=failure,
            degraded=False,
            covariate=lambda: None,
        )
        self.metrics.count_exposed_failure(type(known_error).__name__)

    def _signer(self, key: SigningKey, context: bytes) -> Signer:
        found = self._signers.get(context)
        if found is not None and found[0] is key:
            return found[1]
        if len(self._signers) >= _MOST_SIGNERS:
            self._signers.clear()
        signer = Signer(key, context)
        self._signers[context] = (key, signer)
        return signer

    def _met(self, judgement: Judgement) -> tuple[KnownRoute, Arm, bytes] | None:
        """Return which arm a unit has met, and what stands for the unit; a mismatch is tallied, and meets none."""
        known, unit = judgement.known, judgement.unit
        if known is None or known.arm is None or unit is None:
            return None
        if judgement.outcome is Outcome.MISMATCH:
            self.tally.add_mismatch(known.arm, known.context)
            return None
        return known, known.arm, unit


def _answered(outputs: _Columns, output: str | None) -> tuple[int, bytes]:
    """Return the rows that were answered, and an output as float32 can hold it; nothing if that is too much."""
    if type(outputs) is Part:
        rows = outputs.stop - outputs.start
        return rows, outputs.floats(output) if output is not None and rows <= MOST_OUTPUTS else b""
    if output is None:
        return len(next(iter(outputs.values()))), b""
    answered = outputs[output]
    rows = len(answered)
    return rows, float32_of(answered).tobytes() if rows <= MOST_OUTPUTS else b""


def _covariate(feature: str | None, features: _Columns) -> float | None:
    """Return a feature's value in a request's first row; None if it has no finite number there."""
    column = None if feature is None else features.get(feature)
    if column is None or column.dtype.kind not in "fiub":
        return None
    value = float(column.reshape(-1)[0].item())
    return value if math.isfinite(value) else None
