"""What an outcome says, before anything is written: of which prediction it is, and which metrics it has. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fairlead.feedback.keys import KeyRing, deployment_of
from fairlead.feedback.messages import Fate, Outcome
from fairlead.feedback.token import NONCE_BYTES, ForgedToken, Prediction, TokenError, read
from fairlead_ledger.intake.rules import Refused, Rules, Values

LAST_ROW = (1 << 31) - 1
"""Rows beyond it are not told apart."""


@dataclass(frozen=True, slots=True)
class Joined:
    """An outcome that belongs to a prediction."""

    experiment_id: int
    phase: int
    variant: str
    window_us: int
    """How long outcomes are waited for."""
    time_us: int
    """Of the prediction."""
    unit: bytes
    nonce: bytes
    row: int
    by_unit: bool
    """Told by unit, so that its id makes it one."""
    values: Values


@dataclass(frozen=True, slots=True)
class Exposed:
    """An exposure of a unit, the witness of its arm."""

    phase: int
    variant: str
    at_us: int


@dataclass(frozen=True, slots=True)
class Named:
    """An outcome that names its unit."""

    salt: str
    unit: str
    at_us: int
    id: str
    digest: bytes
    """What stands for the unit."""


@dataclass(frozen=True, slots=True)
class Judge:
    """Judges outcomes by keys and designs."""

    root: KeyRing
    rules: Mapping[str, Rules]
    """Of the experiments that are declared, by salt."""

    def told(self, outcome: Outcome) -> Prediction | Named | Refused:
        """Return what an outcome is about."""
        if outcome.prediction_id is None:
            return self._named(outcome)
        try:
            return read(outcome.prediction_id, self.root)
        except ForgedToken as error:
            return Refused(Fate.FORGED, f"prediction_id {error}")
        except TokenError as error:
            return Refused(Fate.MALFORMED, f"prediction_id {error}")

    def by_token(self, outcome: Outcome, prediction: Prediction) -> Joined | Refused:
        """Judge an outcome that comes with a token."""
        context = prediction.context
        rules = self.rules.get(context.salt)
        if rules is None:
            return _UNKNOWN
        if not rules.has(context.variant, context.phase):
            return Refused(Fate.UNKNOWN_EXPERIMENT, "the design has no such arm or phase as the token's", rules.id)
        row = _row(outcome.row, prediction.rows)
        if row is None:
            message = f"row is needed, 0 to {prediction.rows - 1}: the request had {prediction.rows} rows"
            return Refused(Fate.MALFORMED, message, rules.id)
        predicted = prediction.outputs[row] if row < len(prediction.outputs) else None
        values = rules.values(outcome, predicted)
        if isinstance(values, Refused):
            return values
        place = (rules.id, context.phase, context.variant, rules.window_us, prediction.time_us)
        return Joined(*place, prediction.unit, prediction.nonce, row, by_unit=False, values=values)

    def by_unit(self, outcome: Outcome, named: Named, exposures: Sequence[Exposed]) -> Joined | Refused:
        """Judge an outcome that names its unit: its arm is the one that the law gives it, if it was exposed there.

        Args:
            outcome: As told.
            named: What it is about.
            exposures: Of the unit in the experiment.
        """
        rules = self.rules.get(named.salt)
        if rules is None:
            return _UNKNOWN
        earlier = [one for one in exposures if one.at_us <= named.at_us and one.phase in rules.layouts]
        if not earlier:
            return Refused(Fate.UNKNOWN_UNIT, "the unit was not exposed at at_us or before", rules.id)
        phase = max(one.phase for one in earlier)
        arm = rules.arm(named.unit, phase)
        if all((one.phase, one.variant) != (phase, arm) for one in earlier):
            return Refused(Fate.UNKNOWN_UNIT, "the unit was exposed to another arm than the law gives it", rules.id)
        if (outcome.row or 0) > LAST_ROW:
            return Refused(Fate.MALFORMED, f"row is larger than {LAST_ROW}", rules.id)
        values = rules.values(outcome, None)
        if isinstance(values, Refused):
            return values
        nonce = hashlib.blake2b(named.id.encode(), digest_size=NONCE_BYTES).digest()
        place = (rules.id, phase, arm, rules.window_us, named.at_us)
        return Joined(*place, named.digest, nonce, outcome.row or 0, by_unit=True, values=values)

    def _named(self, outcome: Outcome) -> Named | Refused:
        salt, unit, at_us, id_ = outcome.experiment, outcome.unit, outcome.at_us, outcome.id
        if salt is None or unit is None or at_us is None or id_ is None:
            return Refused(Fate.MALFORMED, "unit needs experiment, at_us and id beside it")
        digest = self.root.of(deployment_of(salt)).unit(unit.encode(), salt)
        return Named(salt, unit, at_us, id_, digest)


_UNKNOWN = Refused(Fate.UNKNOWN_EXPERIMENT, "no such experiment is declared")


def _row(told: int | None, rows: int) -> int | None:
    """Return the row that an outcome is about; None if it does not say which, or there is no such one."""
    row = 0 if told is None and rows == 1 else told
    return row if row is not None and row < rows and row <= LAST_ROW else None
