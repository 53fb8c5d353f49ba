"""Rules across fields, in CEL, for the API server to refuse at once what could never be served.

Each has a partner in the validators of ``v1alpha1`` (same name in the tests' table of refusals), except for two kinds:
what only a cluster refuses (``path``, ``file://``), and what a change may not do (``oldSelf``).
Messages name the fix; ``field`` points at what to mend where that is one field.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic.alias_generators import to_camel

from fairlead import BUCKETS
from fairlead.experiment.design import Kind, Meaning, Source
from fairlead.route import OVERRIDE_HEADER, UNIT_HEADER
from fairlead_operator.api.objects import SCHEMES
from fairlead_operator.api.v1alpha1 import NAMES_MAX, HydrationSpec
from fairlead_operator.api.v1alpha1.experiment import BUILT_IN, NOT_OF_CANARY
from fairlead_operator.api.v1alpha1.rollout import MOST_STEPS
from fairlead_operator.api.v1alpha1.routing import TAKEN_HEADERS

_STRATEGY = "(has(self.strategy) ? self.strategy : 'Manual')"
_SPEC_STRATEGY = "self.?rollout.?strategy.orValue('Manual')"
_TREATMENTS = "self.variants.filter(v, v.role == 'Treatment')"
_SAME_EXPERIMENT = (
    "has(self.experiment) && has(self.experiment.id) && has(oldSelf.experiment) && has(oldSelf.experiment.id)"
    " && self.experiment.id == oldSelf.experiment.id"
)
_GUARDED_CANARY = f"({_SPEC_STRATEGY} == 'Canary' && has(self.experiment))"
_FITS = f"size(self.metadata.name) + size(v.name) <= {NAMES_MAX}"
_TOO_LONG = f"metadata.name and the name of a variant together have over {NAMES_MAX} letters; shorten one"
_END = "bump experiment.id, or remove the experiment block to end it"
_JUDGED = "(has(self.experiment.objective) || has(self.experiment.guardrails) && size(self.experiment.guardrails) > 0)"
_METRICS = (
    "((has(self.objective) ? [self.objective.metric] : [])"
    " + (has(self.guardrails) ? self.guardrails.map(one, one.metric) : []))"
)
_STEPS_KEPT = (
    f"{_SPEC_STRATEGY} != 'Experiment' || oldSelf.?rollout.?strategy.orValue('Manual') != 'Experiment'"
    " || !has(oldSelf.rollout.steps) || has(self.rollout.steps)"
    f" && {list(range(MOST_STEPS))}.all(i, i >= size(oldSelf.rollout.steps)"
    " || i < size(self.rollout.steps) && self.rollout.steps[i].weights == oldSelf.rollout.steps[i].weights)"
)
"""CEL that the weights of the old steps begin the new ones: holds may change, steps may be added behind."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule."""

    name: str
    """What it is called in tests and in the reference."""
    at: str
    """The object whose rule it is, such as ``spec.variants[]``; empty for the whole."""
    cel: str
    """What must hold."""
    message: str
    """What is wrong and how to mend it."""
    expression: str = ""
    """CEL for a message that names what is wrong; ``message`` if it cannot be evaluated."""
    field: str = ""
    """Path from ``at`` to the field at fault."""
    reason: str = "FieldValueInvalid"
    """Reason of the refusal, as the API server spells it."""

    on_creation: bool = True
    """Whether it holds for new objects; a rule of changes alone holds from ``oldSelf`` to ``self``."""

    def rendered(self) -> dict[str, Any]:
        """Return it as an item of ``x-kubernetes-validations``."""
        optional = {"messageExpression": self.expression, "fieldPath": self.field}
        also_old = {"optionalOldSelf": True} if self.on_creation and "oldSelf" in self.cel else {}
        return {
            "rule": self.cel,
            "message": self.message,
            **{key: value for key, value in optional.items() if value},
            "reason": self.reason,
            **also_old,
        }


def _frozen(name: str, what: str, same: str, field: str) -> Rule:
    """Return the rule that ``what`` stays while an experiment runs; ``same`` compares ``self`` to ``oldSelf``."""
    return Rule(
        name=name,
        at="spec",
        cel=f"!({_SAME_EXPERIMENT}) || ({same})",
        message=f"the experiment has frozen {what}: {_END}",
        expression=f"'experiment ' + self.experiment.id + ' has frozen {what}: {_END}'",
        field=field,
        on_creation=False,
    )


def _both(expression: str) -> str:
    """Return CEL that ``expression`` is the same as before."""
    return f"{expression} == {expression.replace('self.', 'oldSelf.')}"


def _arms(part: str) -> str:
    """Return CEL for ``part`` of every arm, the Control first."""
    roles = ("Control", "Treatment")
    return " + ".join(f"self.variants.filter(v, v.role == '{role}').map(v, {part})" for role in roles)


def _same(path: str, default: str) -> str:
    """Return CEL that the optional field at ``path`` is what it was, where left out means ``default``.

    One side of each comparison has a declared size: the API server's estimate of the cost knows no other bound.
    """
    names = path.split(".")
    given = " && ".join(f"has(self.{'.'.join(names[: count + 1])})" for count in range(len(names)))
    before = f"oldSelf.?{'.?'.join(names)}.orValue({default})"
    return f"({given} ? self.{path} == {before} : {default} == {before})"


def _weights(name: str, wrong: str, unless: str, message: str) -> tuple[Rule, Rule]:
    """Return the rules that no weight is ``wrong``, for weights and for steps.

    Args:
        name: What the rules are called.
        wrong: CEL of a variant's name ``n`` and the map that it stands in, ``WEIGHTS``.
        unless: CEL of cases in which nothing is wrong; empty if there are none.
        message: What is wrong and how to mend it.
    """
    given = "!has(self.rollout) || !has(self.rollout.PART) || " + (f"{unless} || " if unless else "")
    in_weights, in_step = (wrong.replace("WEIGHTS", where) for where in ("self.rollout.weights", "step.weights"))
    weights = given.replace("PART", "weights") + f"self.rollout.weights.all(n, !({in_weights}))"
    steps = given.replace("PART", "steps") + f"self.rollout.steps.all(step, step.weights.all(n, !({in_step})))"
    # To name the entry among all steps is over the API server's budget; in one map it is not.
    named = f"self.rollout.weights.filter(n, {in_weights})[0] + ' {message}'"
    return (
        Rule(f"weights-{name}", "spec", weights, f"an entry of weights {message}", named, ".rollout.weights"),
        Rule(f"steps-{name}", "spec", steps, f"an entry of weights {message}", field=".rollout.steps"),
    )


def _measured(at: str, size: str) -> tuple[Rule, ...]:
    """Return the rules of a metric with the size of an effect.

    Args:
        at: The object that has both.
        size: Field of the size.
    """
    (name,) = at.removesuffix("[]").split(".")[-1:]
    built_in = f"self.metric in {list(BUILT_IN)}"
    proportions = [metric for metric, known in BUILT_IN.items() if known.kind is Kind.PROPORTION]
    number = f"double(self.{size}.find('[0-9]+([.][0-9]+)?'))"
    return (
        Rule(
            f"{name}-built-in",
            at,
            f"!({built_in}) || !has(self.kind) && !has(self.better) && !has(self.quantile)",
            "is built in, so that its kind and direction are known; remove kind, better and quantile",
            field=".metric",
            reason="FieldValueForbidden",
        ),
        Rule(
            f"{name}-described",
            at,
            f"{built_in} || has(self.kind) && has(self.better)",
            f"is not built in ({', '.join(BUILT_IN)}); say its kind and which is better",
            field=".metric",
            reason="FieldValueRequired",
        ),
        Rule(
            f"{name}-quantile",
            at,
            "self.?kind.orValue('') == 'Quantile' ? has(self.quantile) : !has(self.quantile) || " + built_in,
            "quantile is required where kind is Quantile, and is for that alone",
            field=".metric",
        ),
        Rule(
            f"{name}-over-0",
            at,
            f"{number} > 0.0",
            "must be over 0; a difference of nothing can never be told",
            field=f".{size}",
        ),
        Rule(
            f"{name}-under-100",
            at,
            f"!self.{size}.endsWith('%') && !self.{size}.endsWith('pp') || {number} < 100.0",
            "must be under 100 per cent; lower it",
            field=f".{size}",
        ),
        Rule(
            f"{name}-points",
            at,
            f"!self.{size}.endsWith('pp') || self.metric in {proportions} || self.?kind.orValue('') == 'Proportion'",
            "has pp, which is for proportions; give per cent, or the metric's own unit",
            field=f".{size}",
        ),
    )


def _named(meaning: Meaning) -> list[str]:
    return [name for name, known in BUILT_IN.items() if known.meaning is meaning]


_WAITED_FOR = [name for name, known in BUILT_IN.items() if known.source is Source.SYSTEM]
"""Metrics without outcomes."""

RULES: tuple[Rule, ...] = (
    # The API server tolerates what an older schema let in as long as it is not touched, but the whole always is. So
    # names are checked when they come: else nobody could write the status of such an object, or take a finalizer off.
    Rule(
        "names-fit", "", f"oldSelf.hasValue() || self.spec.variants.all(v, {_FITS})", _TOO_LONG, field=".spec.variants"
    ),
    Rule(
        "new-names-fit",
        "",
        f"self.spec.variants.all(v, {_FITS} || oldSelf.spec.variants.exists(was, was.name == v.name))",
        _TOO_LONG,
        field=".spec.variants",
        on_creation=False,
    ),
    Rule(
        "release-frozen",
        "",
        # An unchanged spec comes first: to write a status must never be refused.
        _same("spec.serving.release", "''") + f" || !({_SAME_EXPERIMENT.replace('elf.', 'elf.spec.')})"
        " || [oldSelf.spec.?serving.?release.or(oldSelf.?status.?servingRelease)].all(before,"
        " !before.hasValue() || self.spec.?serving.?release.or(self.?status.?servingRelease) == before)",
        f"the experiment has frozen serving.release: {_END}",
        f"'experiment ' + self.spec.experiment.id + ' has frozen serving.release: {_END}'",
        field=".spec.serving.release",
        on_creation=False,
    ),
    Rule(
        "some-control",
        "spec.variants",
        "self.exists(v, v.role == 'Control')",
        "no variant has role Control; give it to the one that serves today",
        reason="FieldValueRequired",
    ),
    Rule(
        "one-control",
        "spec.variants",
        "self.filter(v, v.role == 'Control').size() <= 1",
        "more than one variant has role Control; make the others Treatments or Shadows",
    ),
    Rule(
        "one-feature-store",
        "spec.featureStore",
        "has(self.path) || has(self.configMapRef) != has(self.featureStoreRef)",
        "give exactly one of configMapRef and featureStoreRef",
    ),
    Rule(
        "store-in-cluster",
        "spec.featureStore",
        "!has(self.path)",
        "path is for one machine (fairlead up); in a cluster give configMapRef or featureStoreRef instead",
        field=".path",
        reason="FieldValueForbidden",
    ),
    Rule(
        "model-in-cluster",
        "spec.variants[].model",
        f"{list(SCHEMES)}.exists(scheme, self.uri.startsWith(scheme))",
        f"must begin with one of {', '.join(SCHEMES)}; paths and file:// are for one machine:"
        " put the file into a store and give its address",
        field=".uri",
    ),
    Rule(
        "claim-needs-no-storage",
        "spec.variants[].model",
        "!(has(self.storage) && self.uri.startsWith('pvc://'))",
        "is for object stores; a pvc:// is mounted: remove storage",
        field=".storage",
        reason="FieldValueForbidden",
    ),
    Rule(
        "replicas-in-order",
        "spec.variants[].scaling",
        "!has(self.maxReplicas) || !has(self.minReplicas) || self.maxReplicas >= self.minReplicas",
        "is below minReplicas; raise it",
        field=".maxReplicas",
    ),
    Rule(
        "one-unit-source",
        "spec.routing.unit",
        "!(has(self.jwtClaim) && has(self.cookie))",
        "cookie and jwtClaim exclude each other; remove one",
        field=".cookie",
    ),
    Rule(
        "headers-differ",
        "spec.routing",
        "has(self.unit) && has(self.unit.header)"
        f" ? self.unit.header != self.?override.?header.orValue('{OVERRIDE_HEADER}')"
        f" : self.?override.?header.orValue('{OVERRIDE_HEADER}') != '{UNIT_HEADER}'",
        "unit.header and override.header are the same; choose another",
        field=".override.header",
    ),
    Rule(
        "unit-header-free",
        "spec.routing",
        f"!has(self.unit) || !has(self.unit.header) || !(self.unit.header in {list(TAKEN_HEADERS)})",
        "has another meaning; choose another header",
        field=".unit.header",
    ),
    Rule(
        "override-header-free",
        "spec.routing",
        f"!has(self.override) || !has(self.override.header) || !(self.override.header in {list(TAKEN_HEADERS)})",
        "has another meaning; choose another header",
        field=".override.header",
    ),
    Rule(
        "manual-has-no-steps",
        "spec.rollout",
        f"{_STRATEGY} != 'Manual' || !has(self.steps) || self.steps.size() == 0",
        "steps are for Canary and Experiment, Manual has weights; remove them, or change strategy",
        field=".steps",
    ),
    Rule(
        "weights-are-manual",
        "spec.rollout",
        f"{_STRATEGY} == 'Manual' || !has(self.weights) || self.weights.size() == 0",
        "weights are for Manual, Canary and Experiment have steps; remove them, or change strategy",
        field=".weights",
    ),
    Rule(
        "steps-required",
        "spec.rollout",
        f"{_STRATEGY} == 'Manual' || (has(self.steps) && self.steps.size() > 0)",
        "Canary and Experiment need at least one step; give one, or use Manual",
        field=".steps",
        reason="FieldValueRequired",
    ),
    Rule(
        "hold-required",
        "spec.rollout",
        "!has(self.steps) || self.steps.all(step, has(step.hold)) || (self.steps.filter(step, !has(step.hold)).size() "
        "== 1 && !has(self.steps[self.steps.size() - 1].hold))",
        "hold is required on every step but the last; say how long it lasts, such as 30m",
        field=".steps",
        reason="FieldValueRequired",
    ),
    Rule(
        "canary-has-no-treatments",
        "spec",
        f"{_SPEC_STRATEGY} != 'Canary' || !self.variants.exists(v, v.role == 'Treatment')",
        "Canary rolls out revisions of the Control; remove the Treatments, or use Manual or Experiment",
        field=".rollout.strategy",
    ),
    Rule(
        "experiment-id-required",
        "spec",
        f"!has(self.experiment) || has(self.experiment.id) || {_SPEC_STRATEGY} == 'Canary'",
        "is required where Treatments are compared; give one, such as e1",
        field=".experiment.id",
        reason="FieldValueRequired",
    ),
    Rule(
        "canary-has-guardrails",
        "spec",
        f"!{_GUARDED_CANARY} || has(self.experiment.guardrails) && size(self.experiment.guardrails) > 0",
        "are what a Canary is judged by; give at least one, or remove experiment",
        field=".experiment.guardrails",
        reason="FieldValueRequired",
    ),
    *(
        Rule(
            f"canary-has-no-{field.replace('_', '-')}",
            "spec",
            f"!{_GUARDED_CANARY} || !has(self.experiment.{to_camel(field)})",
            f"{why}; remove it",
            field=f".experiment.{to_camel(field)}",
            reason="FieldValueForbidden",
        )
        for field, why in NOT_OF_CANARY.items()
    ),
    Rule(
        "canary-compares-two",
        "spec",
        f"!{_GUARDED_CANARY} || !has(self.rollout.steps)"
        " || self.rollout.steps.all(step, step.weights.all(n, step.weights[n] > 0.0 && step.weights[n] < 100.0))",
        "weights must be over 0 and under 100 where guardrails compare the new revision with the old one",
        field=".rollout.steps",
    ),
    Rule(
        "experiment-required",
        "spec",
        f"{_SPEC_STRATEGY} != 'Experiment' || has(self.experiment)",
        "is required where rollout.strategy is Experiment; give it an id",
        field=".experiment",
        reason="FieldValueRequired",
    ),
    Rule(
        "experiment-has-treatments",
        "spec",
        f"{_SPEC_STRATEGY} != 'Experiment' || self.variants.exists(v, v.role == 'Treatment')",
        "an Experiment needs a Treatment; add one, or use Manual or Canary",
        field=".variants",
    ),
    Rule(
        "unit-required",
        "spec",
        f"{_SPEC_STRATEGY} != 'Experiment' || has(self.routing) && has(self.routing.unit)",
        "is required where rollout.strategy is Experiment; say which header, claim or cookie names a unit",
        field=".routing.unit",
        reason="FieldValueRequired",
    ),
    *_weights("known", "!self.variants.exists(v, v.name == n)", "", "is no variant; see spec.variants"),
    *_weights(
        "not-on-control",
        "self.variants.exists(v, v.name == n && v.role == 'Control')",
        f"{_SPEC_STRATEGY} == 'Canary'",
        "is the Control, which takes the rest; remove it",
    ),
    *_weights(
        "not-on-shadow",
        "self.variants.exists(v, v.name == n && v.role == 'Shadow')",
        "",
        "is a Shadow, which gets copies only; remove it or make it a Treatment",
    ),
    *_weights(
        "in-slot",
        f"int(WEIGHTS[n] * {BUCKETS / 100} + 0.5) * {_TREATMENTS}.size() > {BUCKETS}",
        "",
        "is over its slot, which is 100 divided by the number of Treatments; lower it",
    ),
    *_measured("spec.experiment.objective", "minimumEffect"),
    *_measured("spec.experiment.guardrails[]", "margin"),
    Rule(
        "metrics-differ",
        "spec.experiment",
        "!has(self.objective) || !has(self.guardrails)"
        " || !self.guardrails.exists(one, one.metric == self.objective.metric)",
        "the objective is judged twice; name each metric once",
        field=".guardrails",
    ),
    Rule(
        "metrics-of-one-meaning",
        "spec.experiment",
        f"!{_METRICS}.exists(m, m in {_named(Meaning.PROBABILITY)})"
        f" || !{_METRICS}.exists(m, m in {_named(Meaning.NUMBER)})",
        "brier and log_loss are for probabilities, squared_error and absolute_error for numbers;"
        " keep those of one kind",
        field=".guardrails",
    ),
    Rule(
        "outcome-window-required",
        "spec.experiment",
        f"has(self.outcomeWindow) || {_METRICS}.all(m, m in {_WAITED_FOR})",
        "is required where outcomes are waited for; say how long after a prediction they come, such as 24h",
        field=".outcomeWindow",
        reason="FieldValueRequired",
    ),
    _frozen("design-frozen", "its design", "self.experiment == oldSelf.experiment", ".experiment"),
    _frozen(
        "plan-frozen",
        "rollout.strategy, the number of its steps and, under Manual, its weights",
        f"!{_JUDGED} || {_same('rollout.strategy', repr('Manual'))}"
        f" && ({_SPEC_STRATEGY} != 'Manual' || {_same('rollout.weights', '{}')})"
        " && (!has(self.rollout) || !has(self.rollout.steps)"
        " || size(self.rollout.steps) == oldSelf.?rollout.?steps.orValue([]).size())",
        ".rollout",
    ),
    _frozen("arms-frozen", "its arms", _both(_arms("v.name")), ".variants"),
    _frozen("models-frozen", "the models of its arms", _both(_arms("v.model.digest")), ".variants"),
    _frozen(
        "unit-frozen",
        "routing.unit",
        " && ".join(
            (
                _same("routing.unit.header", f"'{UNIT_HEADER}'"),
                _same("routing.unit.jwtClaim", "''"),
                _same("routing.unit.cookie.name", "''"),
            )
        ),
        ".routing.unit",
    ),
    _frozen("hosts-frozen", "routing.hosts", _same("routing.hosts", "[]"), ".routing.hosts"),
    _frozen("gateways-frozen", "routing.gateways", _same("routing.gateways", "[]"), ".routing.gateways"),
    _frozen("steps-frozen", "the weights of its steps; more may be added", _STEPS_KEPT, ".rollout.steps"),
    _frozen(
        "hydration-frozen",
        "hydration",
        " && ".join(
            (
                _same("hydration.deadline", f"'{HydrationSpec().deadline}'"),
                _same("hydration.onMissing", "''"),
                _same("hydration.onStale", "''"),
                _same("hydration.onStoreError", "''"),
                _same("hydration.maxAge", "{}"),
            )
        ),
        ".hydration",
    ),
)
"""All of them; a duration's limit and a weight's decimals stand at their fields (``schema``)."""
