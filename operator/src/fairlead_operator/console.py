"""What people see: progress while starting, then tables."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from fairlead_operator.api.conditions import ConditionType, Reason
from fairlead_operator.api.manifest import read
from fairlead_operator.api.v1alpha1 import ModelDeployment, VariantStatus
from fairlead_operator.core.record import State
from fairlead_operator.errors import OperatorError
from fairlead_operator.platforms.local.session import Options

_WIDE = 160


class Progress:
    """Prints one line per thing that has changed, and how to call the deployment once it is ready."""

    def __init__(self, options: Options) -> None:
        """Start counting the time.

        Args:
            options: How ``fairlead up`` was called.
        """
        self._options = options
        self._console = _console()
        self._since = time.monotonic()
        self._told: dict[str, str] = {}
        self._introduced = False
        self._say(f"starting {options.manifest} on {options.host}:{options.port}, state in {options.state}")

    def report(self, resource: ModelDeployment) -> None:
        """Tell what has changed since the last report."""
        status = resource.status
        if status is None or status.conditions[0].reason is Reason.STOPPED:
            return
        for variant in status.variants:
            self._tell(variant.name, _sentence(variant))
        for condition in status.conditions:
            if condition.type is not ConditionType.VARIANTS_READY and (self._introduced or condition.status == "True"):
                self._tell(condition.type, f"{condition.type} {condition.status}: {condition.message}")
        ready = {condition.type for condition in status.conditions if condition.status == "True"}
        if not self._introduced and {ConditionType.SERVABLE, ConditionType.VARIANTS_READY} <= ready:
            self._introduced = True
            show(resource.model_dump(mode="json", exclude_none=True), self._console)
            self._console.print(f"\nTry it:\n{self._curl(resource)}\n", markup=False)
            self._console.print("Edit the file to change the split; Ctrl-C stops everything.", markup=False)

    def ended(self) -> None:
        """Tell that nothing is left running."""
        self._say("stopped; nothing is left running")

    def _tell(self, what: str, sentence: str) -> None:
        if self._told.get(what) != sentence:
            self._told[what] = sentence
            self._say(sentence)

    def _say(self, sentence: str) -> None:
        self._console.print(f"{time.monotonic() - self._since:6.1f}s  {sentence}", markup=False)

    def _curl(self, resource: ModelDeployment) -> str:
        """Return a line that works: a prediction if the model's contract can be read, else its metadata."""
        url = resource.status.url if resource.status else None
        base = url.rest if url else ""
        try:
            from fairlead.cli.inspect import curl_line, read_model  # noqa: PLC0415 -- needs onnx
            from fairlead.contract import ContractError  # noqa: PLC0415 -- goes with it
        except ImportError:
            return f"curl {base}/v2/models/{resource.model_name}"
        try:
            manifest = read(self._options.manifest)
            contract = read_model(manifest.resolve(resource.spec.control.model.uri)).contract
        except (OperatorError, ContractError, ImportError):
            return f"curl {base}/v2/models/{resource.model_name}"
        header = resource.spec.routing.units.header
        return curl_line(contract.model_copy(update={"model": resource.model_name}), base, header=header)


def show(resource: dict[str, Any], console: Console | None = None) -> None:
    """Print a resource with its status as tables."""
    out = console or _console()
    status = resource["status"]
    variants = Table("VARIANT", "ROLE", "READY", "WEIGHT %", "REVISION", "RESTARTS", "MODEL", box=None, pad_edge=False)
    for variant in status["variants"]:
        variants.add_row(
            variant["name"],
            variant["role"],
            "yes" if variant["ready"] else "no",
            f"{variant['weight']:g}",
            variant.get("serving") or variant["revision"],
            str(variant["restarts"]),
            variant["modelDigest"][:19],
        )
    conditions = Table("CONDITION", "STATUS", "REASON", "MESSAGE", box=None, pad_edge=False)
    for condition in status["conditions"]:
        conditions.add_row(*(condition[key] for key in ("type", "status", "reason", "message")))
    metadata = resource["metadata"]
    out.print(
        f"\n{metadata['namespace']}/{metadata['name']}  REST {status['url']['rest']}  gRPC {status['url']['grpc']}"
    )
    if "experiment" in status:
        out.print(f"experiment {status['experiment']['id']}, phase {status['rollout']['phase']}: {_observing(status)}")
    for line in _rollout(resource["spec"].get("rollout", {}), status["rollout"]):
        out.print(line, markup=False)
    if "simulatedTime" in status:
        out.print(f"simulated time {status['simulatedTime']}")
    history = Table("ROLLED OUT", "VERDICT", "REASON", "BEGAN", "ENDED", box=None, pad_edge=False)
    for past in status["history"]:
        history.add_row(*(past[key] for key in ("revision", "verdict", "reason", "startedAt", "endedAt")))
    for table in (variants, conditions, *([history] if status["history"] else [])):
        out.print()
        out.print(table)


def _console() -> Console:
    """Return a console that cuts nothing off where no terminal sets the width."""
    console = Console(highlight=False, soft_wrap=True)
    return console if console.is_terminal else Console(highlight=False, soft_wrap=True, width=_WIDE)


def _observing(status: dict[str, Any]) -> str:
    return "observed" if status["experiment"]["observing"] else "not observed, an arm is out of traffic"


def _rollout(planned: dict[str, Any], rollout: dict[str, Any]) -> Iterator[str]:
    """Yield what there is to say about a rollout by steps."""
    steps = planned.get("steps", [])
    if not steps:
        return
    said = [f"rollout by {planned['strategy']}: {rollout['state']}"]
    if rollout["state"] in {State.RAMPING, State.DECIDING}:
        since = f" since {rollout['stepStartedAt']}" if "stepStartedAt" in rollout else ", not in force yet"
        said.append(f"step {rollout['step'] + 1} of {len(steps)}{since}")
    if "weight" in rollout:
        said.append(f"{rollout.get('candidate', 'candidate')} has {rollout['weight']} per cent")
    yield "; ".join(said)
    decision = rollout.get("decision")
    if decision is not None:
        winner = f" {decision['variant']}" if "variant" in decision else ""
        yield f"decided: {decision['verdict']}{winner} ({decision['reason']}) at {decision['at']}"


def _sentence(variant: VariantStatus) -> str:
    if variant.ready:
        return f"{variant.name}: ready as {variant.revision}"
    why = variant.last_failure.message if variant.last_failure else "starting"
    return f"{variant.name}: not ready as {variant.revision}: {why}"
