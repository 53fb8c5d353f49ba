"""Moving a deployment to another release of the model server: when that may be, and what follows. Pure."""

from __future__ import annotations

from fairlead_operator.core.desired import Desired
from fairlead_operator.core.goal import current_run
from fairlead_operator.core.record import Record
from fairlead_operator.errors import RequestRefused


def upgrade(desired: Desired, record: Record, before: str, release: str) -> str:
    """Return what will happen when the release ``before`` becomes ``release``.

    Raises:
        RequestRefused: An experiment has frozen the release; the message says how to go on.
    """
    if release == before:
        return f"pins server release {release}, which is in force; nothing moves"
    if desired.experiment_id is not None:
        raise RequestRefused(f"{desired.name}: {_frozen(desired, record)}")
    return f"server release {before or 'unknown'} -> {release}; {_course(desired, record)}"


def _frozen(desired: Desired, record: Record) -> str:
    run = current_run(desired, record)
    why = f"experiment {desired.experiment_id} has frozen the server release: predictions come of model and server"
    if run is not None and run.is_over:
        return (
            f"{why}; it is decided, so remove spec.experiment (`fairlead promote -f FILE` writes the winner down and "
            "removes it), then upgrade"
        )
    return (
        f"{why}; give spec.experiment.id a new value along with spec.serving.release to start anew, or remove "
        "spec.experiment to end it, then upgrade"
    )


def _course(desired: Desired, record: Record) -> str:
    names = ", ".join(desired.revisions)
    if desired.strategy.name != "Canary":
        return f"new revisions of {names} are started, and each takes over at the same weight once it is complete"
    run = current_run(desired, record)
    steps = f"{len(desired.strategy.steps)} step{'s' if len(desired.strategy.steps) > 1 else ''}"
    instead = "; the canary under way is replaced" if run is not None and not run.is_over else ""
    return f"a new revision of {desired.control} is rolled out by Canary, in {steps}{instead}"
