"""What people see: progress while starting, then tables."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fairlead_operator.api.conditions import Condition, ConditionType, Reason
from fairlead_operator.api.manifest import read
from fairlead_operator.api.v1alpha1 import ModelDeployment, Status, VariantStatus
from fairlead_operator.core.desired import Desired
from fairlead_operator.core.goal import current_run, goal_of
from fairlead_operator.core.record import Record, State
from fairlead_operator.errors import OperatorError

if TYPE_CHECKING:
    from fairlead_operator.platforms.local.session import Options

_WIDE = 200
_BAR = 20
"""Characters of a weight of 100 per cent."""
_STYLES = {"True": "green", "False": "red", "Unknown": "yellow"}


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
        if status.experiment is not None and status.experiment.page is not None:
            self._tell("ledger", _ledger(status.experiment.page))
        for variant in status.variants:
            self._tell(variant.name, _sentence(variant))
        for condition in status.conditions:
            if condition.type is not ConditionType.VARIANTS_READY and (self._introduced or condition.status == "True"):
                self._tell(condition.type, f"{condition.type} {condition.status}: {_news(condition)}")
        if not self._introduced and _is_up(status):
            self._introduced = True
            show(resource.model_dump(mode="json", exclude_none=True), self._console)
            self._console.print(f"\nTry it:\n{self._curl(resource)}\n", markup=False)
            self._console.print("Edit the file to change the split; Ctrl-C stops everything.", markup=False)

    def note(self, sentence: str) -> None:
        """Tell a sentence."""
        self._say(sentence)

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


@dataclass(frozen=True, slots=True)
class View:
    """A deployment as people look at it."""

    resource: dict[str, Any]
    """The whole ModelDeployment with its status, as JSON has it."""
    targets: Mapping[str, float] | None = None
    """Weight that the rollout aims at, by variant, per cent; None if that is not known."""
    record: str | None = None
    """Where its decisions are written down; None if nothing is."""


def targets_of(desired: Desired, record: Record) -> dict[str, float]:
    """Return the weight that a rollout aims at, by variant, per cent; under Canary that of the new revision."""
    goal = goal_of(desired, record)
    weights = {arm: width / 100 for arm, width in goal.weights_bp.items()}
    if desired.strategy.name == "Canary":
        run = current_run(desired, record)
        is_done = goal.winner is not None or run is None
        return {desired.control: 100.0 if is_done else weights[desired.control]}
    if goal.winner is not None:
        return {**dict.fromkeys((desired.control, *weights), 0.0), goal.winner: 100.0}
    return {desired.control: 100 - sum(weights.values()), **weights}


class Screen:
    """Shows one picture after the other: in the same place on a terminal that is watched, else one below the other."""

    def __init__(self, *, live: bool) -> None:
        """Prepare it; ``live`` for pictures that follow each other."""
        console = _console()
        self.has_shown = False
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if live and console.is_terminal else None

    def begin(self) -> None:
        """Take the place."""
        if self._live:
            self._live.start()

    def end(self) -> None:
        """Leave the last picture standing."""
        if self._live:
            self._live.stop()

    def show(self, picture: RenderableType) -> None:
        """Show a picture."""
        if self._live:
            self._live.update(picture, refresh=True)
        else:
            self._console.print(picture)


def show(resource: dict[str, Any], console: Console | None = None) -> None:
    """Print a resource with its status as tables."""
    (console or _console()).print(picture(View(resource)))


def overview(views: Sequence[View]) -> RenderableType:
    """Return one line for each of several deployments."""
    if not views:
        return Text("no ModelDeployments here; `kubectl apply -f FILE` makes one")
    table = _table("NAMESPACE", "NAME", "READY", "REASON", "ROLLOUT", "WEIGHTS %", "RELEASE")
    for view in views:
        resource, status = view.resource, view.resource.get("status") or {}
        ready: dict[str, Any] = next(
            (one for one in status.get("conditions", ()) if one["type"] == ConditionType.READY), {}
        )
        weights = ", ".join(f"{one['name']} {one['weight']:g}" for one in status.get("variants", ()))
        table.add_row(
            resource["metadata"].get("namespace", ""),
            resource["metadata"]["name"],
            _verdict(ready.get("status", "Unknown")),
            ready.get("reason", "not seen by the operator yet"),
            _standing(resource["spec"].get("rollout", {}), status.get("rollout", {})),
            weights,
            status.get("servingRelease", ""),
        )
    return table


def picture(view: View) -> RenderableType:
    """Return everything that there is to say about one deployment."""
    resource, status = view.resource, view.resource.get("status") or {}
    metadata = resource["metadata"]
    title = Text(f"\n{metadata.get('namespace', 'default')}/{metadata['name']}", style="bold")
    lines = [Text(line) for line in _head(view)]
    if not status:
        return Group(title, *lines, Text("the operator has not seen it yet; is it running?", style="yellow"))
    tables = [_variants(view), _conditions(status), *_history(status)]
    return Group(title, *lines, *(part for table in tables for part in (Text(), table)))


def _head(view: View) -> Iterator[str]:
    """Yield what stands above the tables."""
    resource, status = view.resource, view.resource.get("status") or {}
    url = status.get("url")
    if url:
        inside = f"  in the cluster {url['internal']}" if "internal" in url else ""
        yield f"REST {url['rest']}  gRPC {url['grpc']}{inside}"
    if "servingRelease" in status:
        yield f"server release {status['servingRelease']}"
    experiment = status.get("experiment")
    if experiment:
        yield f"experiment {experiment['id']}, phase {status['rollout']['phase']}: {_observing(experiment)}"
        yield from _judged(experiment)
    yield from _rollout(resource["spec"].get("rollout", {}), status.get("rollout", {}))
    if "simulatedTime" in status:
        yield f"simulated time {status['simulatedTime']}"
    if view.record:
        yield f"record {view.record}"
    seen, asked = status.get("observedGeneration"), resource["metadata"].get("generation")
    if seen is not None and asked is not None and seen < asked:
        yield f"generation {asked} of the spec was not seen by the operator yet; this is about {seen}"


def _variants(view: View) -> Table:
    status, targets = view.resource["status"], view.targets or {}
    table = _table("VARIANT", "ROLE", "READY", "REPLICAS", "WEIGHT %", "", "TARGET %", "REVISION", "RESTARTS", "MODEL")
    for variant in status.get("variants", ()):
        for share in _shares(variant, status.get("rollout", {}), targets):
            table.add_row(
                variant["name"],
                variant["role"],
                _verdict("True" if variant["ready"] else "False") if share.is_wanted else Text("-"),
                str(variant.get("replicas", "")) if share.is_wanted else "",
                f"{share.weight:g}",
                _bar(share.weight),
                "" if share.target is None else f"{share.target:g}",
                share.revision,
                str(variant["restarts"]) if share.is_wanted else "",
                variant["modelDigest"][:19] if share.is_wanted else "",
            )
    return table


@dataclass(frozen=True, slots=True)
class _Share:
    """What one revision of a variant has."""

    revision: str
    weight: float
    target: float | None
    is_wanted: bool = True
    """Whether it is the revision that the spec asks for; the status tells nothing else of the one before."""


def _shares(variant: dict[str, Any], rollout: dict[str, Any], targets: Mapping[str, float]) -> Iterator[_Share]:
    """Yield what the revisions of a variant have: two while one replaces the other."""
    wanted, serving = variant["revision"], variant.get("serving") or variant["revision"]
    target, stable = targets.get(variant["name"]), rollout.get("stable")
    if rollout.get("candidate") == wanted and stable not in {None, wanted} and variant["role"] == "Control":
        weight = float(rollout.get("weight") or 0)
        rest = None if target is None else 100 - target
        yield _Share(stable or "", variant["weight"] - weight, rest, is_wanted=False)
        yield _Share(wanted, weight, target)
        return
    if serving != wanted:
        yield _Share(serving, variant["weight"], None, is_wanted=False)
        yield _Share(wanted, 0, target)
        return
    yield _Share(wanted, variant["weight"], target)


def _conditions(status: dict[str, Any]) -> Table:
    table = _table("CONDITION", "STATUS", "REASON", "SINCE", "MESSAGE")
    for one in status.get("conditions", ()):
        since = str(one.get("lastTransitionTime", ""))[:19]
        is_judged = one["type"] != ConditionType.PROGRESSING  # to have come to rest is well
        shown = Text(one["status"], style=_STYLES.get(one["status"], "") if is_judged else "")
        table.add_row(one["type"], shown, one["reason"], since, one["message"])
    return table


def _history(status: dict[str, Any]) -> Iterator[Table]:
    if not status.get("history"):
        return
    table = _table("ROLLED OUT", "VERDICT", "REASON", "BEGAN", "ENDED")
    for past in status["history"]:
        table.add_row(*(past[key] for key in ("revision", "verdict", "reason", "startedAt", "endedAt")))
    yield table


def _table(*columns: str) -> Table:
    return Table(*columns, box=None, pad_edge=False)


def _verdict(status: str) -> Text:
    return Text({"True": "yes", "False": "no"}.get(status, "unknown"), style=_STYLES.get(status, ""))


def _bar(percent: float) -> Text:
    filled = round(percent / 100 * _BAR)
    return Text("#" * filled, style="cyan") + Text("." * (_BAR - filled), style="dim")


def _console() -> Console:
    """Return a console that cuts nothing off where no terminal sets the width."""
    console = Console(highlight=False, soft_wrap=True)
    return console if console.is_terminal else Console(highlight=False, soft_wrap=True, width=_WIDE)


def _observing(experiment: dict[str, Any]) -> str:
    return "observed" if experiment["observing"] else "not observed, an arm is out of traffic"


def _judged(experiment: dict[str, Any]) -> Iterator[str]:
    """Yield what the analysis says of an experiment, and where more is to be read."""
    if "verdict" in experiment:
        units = ", ".join(f"{name} {count}" for name, count in experiment.get("units", {}).items())
        yield f"analysis: {experiment['verdict']} ({experiment.get('reason', '')}); units: {units or 'none yet'}"
    if "page" in experiment:
        yield f"page {experiment['page']}"


def _standing(planned: dict[str, Any], rollout: dict[str, Any]) -> str:
    """Return where a rollout stands, in a word or two."""
    steps, state = planned.get("steps") or [], rollout.get("state", "")
    is_stepping = steps and state in {State.RAMPING, State.DECIDING}
    return f"{state} {rollout['step'] + 1}/{len(steps)}" if is_stepping else state


def _rollout(planned: dict[str, Any], rollout: dict[str, Any]) -> Iterator[str]:
    """Yield what there is to say about a rollout by steps, and about a pause."""
    if rollout.get("pausedAt"):
        yield f"paused since {rollout['pausedAt']}"
    steps = planned.get("steps") or []
    if not steps or not rollout:
        return
    said = [f"rollout by {planned['strategy']}: {rollout['state']}"]
    if rollout["state"] in {State.RAMPING, State.DECIDING}:
        since = f" since {rollout['stepStartedAt']}" if "stepStartedAt" in rollout else ", not in force yet"
        step = steps[min(rollout["step"], len(steps) - 1)]
        hold = f", to be held for {step['hold']}" if step.get("hold") else ", until it is decided"
        said.append(f"step {rollout['step'] + 1} of {len(steps)}{since}{hold}")
    if "weight" in rollout:
        said.append(f"{rollout.get('candidate', 'candidate')} has {rollout['weight']} per cent")
    yield "; ".join(said)
    decision = rollout.get("decision")
    if decision is not None:
        winner = f" {decision['variant']}" if "variant" in decision else ""
        yield f"decided: {decision['verdict']}{winner} ({decision['reason']}) at {decision['at']}"
        if "record" in decision:
            yield f"decision record {decision['record']}"


def _is_up(status: Status) -> bool:
    """Return whether everything answers, and a rollout that is due has begun; or its experiment says why it has not."""
    conditions = {condition.type: condition for condition in status.conditions}
    if any(conditions[kind].status != "True" for kind in (ConditionType.SERVABLE, ConditionType.VARIANTS_READY)):
        return False
    rollout, experiment = status.rollout, conditions[ConditionType.EXPERIMENT_HEALTHY]
    if rollout is None or rollout.paused_at is not None or rollout.state not in {State.PENDING, State.DEPLOYING}:
        return True
    return experiment.status == "False" and experiment.reason is not Reason.NOT_OBSERVING


def _news(condition: Condition) -> str:
    """Return what a condition says; of an experiment that goes on without the figures, which change at every look."""
    goes_on = condition.type is ConditionType.EXPERIMENT_HEALTHY and condition.reason is Reason.OBSERVING
    return condition.message.partition(". ")[0] if goes_on else condition.message


def _ledger(page: str) -> str:
    """Return where an experiment's page is, and where its outcomes are told."""
    address = page.partition("/experiments/")[0]
    return f"experiment: page {page}, outcomes to {address}/v1/outcomes"


def _sentence(variant: VariantStatus) -> str:
    if variant.ready:
        return f"{variant.name}: ready as {variant.revision}"
    why = variant.last_failure.message if variant.last_failure else "starting"
    return f"{variant.name}: not ready as {variant.revision}: {why}"
