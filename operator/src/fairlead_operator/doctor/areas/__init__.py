"""The areas that are looked at, in order; the first says whether the cluster can be reached at all."""

from __future__ import annotations

from typing import Any

from fairlead_operator.doctor.areas.api_server import ApiServer
from fairlead_operator.doctor.areas.autoscaling import Autoscaling
from fairlead_operator.doctor.areas.definition import Definition
from fairlead_operator.doctor.areas.deployments import Deployments
from fairlead_operator.doctor.areas.features import FeatureStores
from fairlead_operator.doctor.areas.gateways import Gateways
from fairlead_operator.doctor.areas.istio import Istio
from fairlead_operator.doctor.areas.kserve import KServe
from fairlead_operator.doctor.areas.namespaces import Namespaces
from fairlead_operator.doctor.areas.operator import Operator
from fairlead_operator.doctor.areas.permissions import Permissions
from fairlead_operator.doctor.areas.pods import Pods
from fairlead_operator.doctor.findings import Check

__all__ = ["cluster_checks"]


def cluster_checks() -> tuple[Check[Any], ...]:
    """Return the checks of a cluster, in order."""
    return (
        ApiServer(),
        Definition(),
        Operator(),
        Permissions(),
        KServe(),
        Istio(),
        Gateways(),
        Autoscaling(),
        Namespaces(),
        FeatureStores(),
        Pods(),
        Deployments(),
    )
