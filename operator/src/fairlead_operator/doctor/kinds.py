"""Kinds that only the doctor looks at."""

from __future__ import annotations

from fairlead_operator.platforms.kubernetes.kinds import Kind


class Document(Kind):
    """A page of the API server that is no resource; its plural is the path."""

    __slots__ = ()

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Return the path."""
        del namespace, name, subresource
        return f"/{self.plural}"


VERSION = Document("", "", "version", "version", namespaced=False)
DEFINITION = Kind(
    "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False
)
MUTATING_WEBHOOKS = Kind(
    "admissionregistration.k8s.io",
    "v1",
    "MutatingWebhookConfiguration",
    "mutatingwebhookconfigurations",
    namespaced=False,
)
VALIDATING_WEBHOOKS = Kind(
    "admissionregistration.k8s.io",
    "v1",
    "ValidatingWebhookConfiguration",
    "validatingwebhookconfigurations",
    namespaced=False,
)
ENDPOINT_SLICE = Kind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")
RESOURCE_QUOTA = Kind("", "v1", "ResourceQuota", "resourcequotas")
API_SERVICE = Kind("apiregistration.k8s.io", "v1", "APIService", "apiservices", namespaced=False)
