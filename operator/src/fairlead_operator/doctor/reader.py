"""Reading a cluster for checks: every call has a deadline, and what cannot be read is an answer, not an exception."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fairlead_operator.doctor.kinds import VERSION, Document
from fairlead_operator.platforms.kubernetes.api import KubeApi, Resource
from fairlead_operator.platforms.kubernetes.errors import Forbidden, KindMissing, KubeError, NotFound
from fairlead_operator.platforms.kubernetes.kinds import Kind
from fairlead_operator.runtime.keys import ObjectKey

_REVIEWS = "authorization.k8s.io"
_SELF_REVIEW = Kind(_REVIEWS, "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", namespaced=False)
_REVIEW = Kind(_REVIEWS, "v1", "SubjectAccessReview", "subjectaccessreviews", namespaced=False)
_AT_A_TIME = 8


@dataclass(frozen=True, slots=True)
class Found:
    """An object that was asked for."""

    resource: Resource | None = None
    problem: str = ""
    """Why it cannot be known whether the object is there; empty if it can."""
    kind_missing: bool = False
    """Whether the API does not even serve its kind."""

    @property
    def is_absent(self) -> bool:
        """Whether it is known not to be there."""
        return self.resource is None and not self.problem


@dataclass(frozen=True, slots=True)
class Listed:
    """Objects that were asked for."""

    items: tuple[Resource, ...] = ()
    problem: str = ""
    """Why they cannot be known; empty if they can."""
    kind_missing: bool = False


@dataclass(frozen=True, slots=True, order=True)
class Access:
    """Something that may be allowed or not."""

    verb: str
    group: str
    resource: str
    """Plural, with its subresource after a slash."""
    namespace: str = ""
    """Empty for all namespaces, and for what is cluster-wide."""

    def __str__(self) -> str:
        """Return it as people say it."""
        where = f" in {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.resource}{f'.{self.group}' if self.group else ''}{where}"


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of a write that was only tried (dry run)."""

    accepted: bool
    refused_by_webhook: bool = False
    words: str = ""


class Reader:
    """Reads; remembers what it has read, since checks look at the same things."""

    def __init__(self, api: KubeApi, *, address: str = "", deadline_s: float = 10.0) -> None:
        """Make a reader.

        Args:
            api: The cluster.
            address: Where it is, for people.
            deadline_s: Longest wait for one answer.
        """
        self._api = api
        self.address = address
        self._deadline_s = deadline_s
        self._found: dict[tuple[Kind, str, str], Found] = {}
        self._listed: dict[tuple[Kind, str | None, tuple[tuple[str, str], ...]], Listed] = {}
        self._turns = asyncio.Semaphore(_AT_A_TIME)

    async def version(self) -> Found:
        """Return what ``/version`` says."""
        return await self.one(VERSION, "", "version")

    async def one(self, kind: Kind, namespace: str, name: str) -> Found:
        """Return one object."""
        place = (kind, namespace, name)
        if place not in self._found:
            self._found[place] = await self._one(kind, ObjectKey(namespace, name))
        return self._found[place]

    async def all(self, kind: Kind, namespace: str | None = None, labels: Mapping[str, str] | None = None) -> Listed:
        """Return the objects of a kind, in one namespace or in all."""
        place = (kind, namespace, tuple(sorted((labels or {}).items())))
        if place not in self._listed:
            self._listed[place] = await self._all(kind, namespace, labels)
        return self._listed[place]

    async def may(self, access: Access, account: str | None = None) -> bool | None:
        """Return whether we, or a service account, may do something; None if the API does not say.

        Args:
            access: What.
            account: ``namespace:name`` of the service account; None for ourselves.
        """
        resource, _, subresource = access.resource.partition("/")
        asked: dict[str, Any] = {"verb": access.verb, "group": access.group, "resource": resource}
        asked |= {"namespace": access.namespace} if access.namespace else {}
        asked |= {"subresource": subresource} if subresource else {}
        kind = _SELF_REVIEW
        spec: dict[str, Any] = {"resourceAttributes": asked}
        if account is not None:
            namespace = account.partition(":")[0]
            groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
            kind, spec = _REVIEW, spec | {"user": f"system:serviceaccount:{account}", "groups": groups}
        review = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {}, "spec": spec}
        try:
            async with self._turns, asyncio.timeout(self._deadline_s):
                answer = await self._api.create(kind, review)
        except (KubeError, TimeoutError):
            return None
        return bool(answer.get("status", {}).get("allowed"))

    async def attempt(self, kind: Kind, resource: Resource) -> Trial | None:
        """Have the API check a write without doing it; None if that cannot be tried.

        Args:
            kind: What it is.
            resource: The whole object.
        """
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._api.apply(kind, resource, dry_run=True)
        except (Forbidden, KindMissing, NotFound):
            return None
        except (KubeError, TimeoutError) as error:
            words = str(error) or f"no answer in {self._deadline_s:g} s"
            webhook = "admission webhook" in words and "failed calling webhook" not in words
            return Trial(accepted=False, refused_by_webhook=webhook, words=words)
        return Trial(accepted=True)

    async def _one(self, kind: Kind, key: ObjectKey) -> Found:
        try:
            async with asyncio.timeout(self._deadline_s):
                return Found(await self._api.get(kind, key))
        except KindMissing:
            return Found(kind_missing=True)
        except NotFound:
            return Found()
        except (KubeError, TimeoutError) as error:
            return Found(problem=self._why(error, f"get {kind}"))

    async def _all(self, kind: Kind, namespace: str | None, labels: Mapping[str, str] | None) -> Listed:
        try:
            async with asyncio.timeout(self._deadline_s):
                return Listed(tuple(await self._api.list(kind, namespace=namespace, labels=labels)))
        except (KindMissing, NotFound):
            return Listed(kind_missing=not isinstance(kind, Document))
        except (KubeError, TimeoutError) as error:
            return Listed(problem=self._why(error, f"list {kind}"))

    def _why(self, error: Exception, call: str) -> str:
        if isinstance(error, TimeoutError):
            return f"{call}: no answer in {self._deadline_s:g} s"
        return f"you may not {call}" if isinstance(error, Forbidden) else str(error)
