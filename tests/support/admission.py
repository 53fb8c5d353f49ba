"""What a kube-apiserver would say of a ModelDeployment, from the CRD's schema and its rules in CEL."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from typing import Any

from fairlead_operator.api.crd import definition
from support.cel import violations
from support.kube.schema import faults, prune


def complaints(deployment: dict[str, Any], old: dict[str, Any] | None = None) -> Iterator[str]:
    """Yield what is wrong with ``deployment``, or with the change from ``old`` to it, under strict field validation."""
    schema = _schema()
    kept = copy.deepcopy(deployment)
    yield from (f'unknown field "{path}"' for path in prune(kept, schema) if not path.startswith("metadata."))
    wrong = [f"{fault.field}: {fault.message}" for fault in faults(kept, schema)]
    yield from wrong
    # As there, rules are left alone where a required field or a type is at fault.
    if not any("Required value" in one or "must be of type" in one for one in wrong):
        yield from (f"{found.path}: {found.message}" for found in violations(kept, schema, old))


@functools.cache
def _schema() -> dict[str, Any]:
    schema: dict[str, Any] = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema
