"""The operator as it is installed: its Deployment, whose account it uses, and what it was told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fairlead_operator.doctor.findings import Scope
from fairlead_operator.doctor.objects import Resource
from fairlead_operator.doctor.reader import Listed, Reader
from fairlead_operator.platforms.kubernetes.kinds import DEPLOYMENT
from fairlead_operator.settings import Settings, variable

NAME = "fairlead-operator"
"""Of the Deployment, the ServiceAccount, the roles and the Lease, where the release is called ``fairlead``."""
LABELS = {"app.kubernetes.io/name": "fairlead", "app.kubernetes.io/component": "operator"}
"""Of the Deployment, whatever it is called."""


@dataclass(frozen=True, slots=True)
class Installation:
    """Where an operator may be, and its Deployment if it has one."""

    places: tuple[str, ...]
    """Namespaces that were looked into."""
    deployment: Resource | None = None
    problem: str = ""
    """Why it cannot be known; empty if it can."""

    @property
    def namespace(self) -> str:
        """Namespace of the Deployment; the usual one if there is none."""
        return str(self.deployment["metadata"]["namespace"]) if self.deployment else self.places[0]

    @property
    def account(self) -> str | None:
        """``namespace:name`` of its service account; None without a Deployment."""
        if self.deployment is None:
            return None
        name = self._pod_spec.get("serviceAccountName") or "default"
        return f"{self.namespace}:{name}"

    @property
    def image(self) -> str:
        """Image of the operator's container; empty without one."""
        return str(self._container.get("image", ""))

    def setting(self, field: str) -> str:
        """Return a setting as it was given by flag or variable; its default if it was not."""
        flag = f"--{field.replace('_', '-')}"
        given = dict(_flags(self._container.get("args") or ()))
        variables = {one["name"]: one.get("value", "") for one in self._container.get("env") or ()}
        default = Settings.model_fields[field].get_default(call_default_factory=True)
        told = ",".join(default) if isinstance(default, tuple) else "" if default is None else str(default)
        return str(given.get(flag) or variables.get(variable(field)) or told)

    @property
    def _pod_spec(self) -> Resource:
        found: Resource = self.deployment["spec"]["template"]["spec"] if self.deployment else {}
        return found

    @property
    def _container(self) -> dict[str, Any]:
        containers: list[dict[str, Any]] = list(self._pod_spec.get("containers") or ())
        return next(
            (one for one in containers if "operator" in one.get("name", "")), containers[0] if containers else {}
        )


async def installation(reader: Reader, scope: Scope) -> Installation:
    """Look for the operator's Deployment: in its usual namespace, then in the one that was asked about."""
    places = tuple(dict.fromkeys(place for place in (scope.operator_namespace, scope.namespace) if place))
    problem = ""
    for place in places:
        found = await reader.one(DEPLOYMENT, place, NAME)
        named_otherwise = await reader.all(DEPLOYMENT, place, LABELS) if found.is_absent else Listed()
        deployment = found.resource or next(iter(named_otherwise.items), None)
        if deployment is not None:
            return Installation(places, deployment)
        problem = problem or found.problem
    return Installation(places, None, problem)


def _flags(arguments: Any) -> Iterator[tuple[str, str]]:
    listed = [str(one) for one in arguments]
    for index, word in enumerate(listed):
        flag, equals, value = word.partition("=")
        if flag.startswith("--"):
            yield flag, value if equals else (listed[index + 1] if index + 1 < len(listed) else "")
