"""What is rendered for a cluster: pure functions from what the core decided to manifests, ready to be applied."""

from fairlead_operator.platforms.kubernetes.render.covers import covers
from fairlead_operator.platforms.kubernetes.render.destination_rule import destination_rules
from fairlead_operator.platforms.kubernetes.render.envoy_filter import envoy_filter
from fairlead_operator.platforms.kubernetes.render.inference_service import (
    client_config_map,
    inference_service,
    pod_identity,
)
from fairlead_operator.platforms.kubernetes.render.names import (
    IMAGE_ANNOTATION,
    RELEASE_LABEL,
    REVISION_ANNOTATION,
    STORAGE_CONTAINER,
    Manifest,
    Place,
    image_of,
    name_too_long,
    runtime_name,
)
from fairlead_operator.platforms.kubernetes.render.policies import (
    authorization_policy,
    network_policy,
    pod_disruption_budget,
)
from fairlead_operator.platforms.kubernetes.render.probe import (
    PROBE_ARM_HEADER,
    PROBE_HEADER,
    PROBE_LAYOUT,
    PROBE_PATH,
    probe_value,
)
from fairlead_operator.platforms.kubernetes.render.route_text import ROUTE_ANNOTATION, read_route, route_text
from fairlead_operator.platforms.kubernetes.render.serving import (
    read_feedback,
    read_keys,
    serving_config_map,
    serving_secret,
)
from fairlead_operator.platforms.kubernetes.render.serving_runtime import is_runtime_used, serving_runtime
from fairlead_operator.platforms.kubernetes.render.storage_container import storage_container
from fairlead_operator.platforms.kubernetes.render.unanswered_filter import UNANSWERED_LABELS, unanswered_filter
from fairlead_operator.platforms.kubernetes.render.virtual_service import virtual_service

__all__ = [
    "IMAGE_ANNOTATION",
    "PROBE_ARM_HEADER",
    "PROBE_HEADER",
    "PROBE_LAYOUT",
    "PROBE_PATH",
    "RELEASE_LABEL",
    "REVISION_ANNOTATION",
    "ROUTE_ANNOTATION",
    "STORAGE_CONTAINER",
    "UNANSWERED_LABELS",
    "Manifest",
    "Place",
    "authorization_policy",
    "client_config_map",
    "covers",
    "destination_rules",
    "envoy_filter",
    "image_of",
    "inference_service",
    "is_runtime_used",
    "name_too_long",
    "network_policy",
    "pod_disruption_budget",
    "pod_identity",
    "probe_value",
    "read_feedback",
    "read_keys",
    "read_route",
    "route_text",
    "runtime_name",
    "serving_config_map",
    "serving_runtime",
    "serving_secret",
    "storage_container",
    "unanswered_filter",
    "virtual_service",
]
