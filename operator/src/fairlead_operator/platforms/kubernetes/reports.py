"""What servers tell about themselves: contract, features and arm mismatches, read from each pod's metadata route.

Reports are read behind the reconciles' backs, so that a pod that does not answer delays nobody; a new one has its
ModelDeployment looked at again.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import aiohttp
import orjson

from fairlead.serving import ExperimentCounts, ReportError, ServerReport
from fairlead_operator.core.signature import UNTOLD, Signature, signature_of

_log = logging.getLogger(__name__)

MISMATCH_SHARE = 0.001
"""Share of arm mismatches above which the gateway counts as breaking the assignment law."""
_LEAST_REQUESTS = 1000
"""Requests with a verified header before a share says anything."""
_LEAST_MISMATCHES = 5
_FORGOTTEN_S = 3600.0
"""A pod that was not read for so long has gone: what lives is read at every resync."""
_MAX_BYTES = 256 * 1024
UNINFORMED_S = 2.0
"""How old the report of a pod may be that has not read yet what servers are told; the kubelet takes its time."""
_UNHEARD_S = 150.0
"""So long after it was written a pod has read what it is told, though its report cannot be had: the kubelet has."""


@dataclass(frozen=True, slots=True)
class Told:
    """What the pods of one revision last told."""

    contract_digest: str | None = None
    features: str | None = None
    """What does not fit in the feature registry; None if all fits, or nobody could tell."""
    verified: int = 0
    """Requests whose experiment header verified."""
    mismatched: int = 0
    """Those among them whose unit belongs to another arm."""
    signature: Signature = UNTOLD
    """What the model takes and answers."""


NOTHING = Told()


@dataclass(frozen=True, slots=True)
class Address:
    """Where one pod's report is."""

    revision: str
    pod: str
    """Its uid."""
    url: str


@dataclass(frozen=True, slots=True)
class Notice:
    """What servers are told of feedback."""

    digest: str
    """What a server says that has read it."""
    since_s: float
    """Since when it is written, by a clock that never goes back."""


@dataclass(slots=True)
class _Known:
    """The last report of one pod. Its counts began with the pod, so an experiment's own are what came since."""

    report: ServerReport
    signature: Signature
    read_s: float
    salt: str = ""
    """Experiment that the counts are told for."""
    before: ExperimentCounts | None = None
    """Counts when it was first told for that experiment; None if it has not been yet."""

    def since(self, salt: str) -> tuple[int, int]:
        """Return the verified and the mismatched requests since ``salt`` was first asked about."""
        counts = self.report.requests
        if self.before is None or self.salt != salt:
            self.salt, self.before = salt, counts
        return counts.verified - self.before.verified, counts.mismatched - self.before.mismatched

    def followed_by(self, report: ServerReport, signature: Signature, read_s: float) -> _Known:
        """Return what is known after another report; a server that was started again counts from 0."""
        begun_anew = report.requests.verified < self.report.requests.verified
        return _Known(report, signature, read_s, self.salt, ExperimentCounts() if begun_anew else self.before)


def _summed(known: Iterable[_Known], salt: str) -> Told:
    """Return what pods of one revision tell together."""
    told = NOTHING
    for one in known:
        report, (verified, mismatched) = one.report, one.since(salt)
        differences = None
        if report.registry.fits is False:
            shown = "; ".join(report.registry.differences)
            differences = f"{report.feature_service} is registered otherwise than the model was trained with: {shown}"
        told = Told(
            contract_digest=report.contract_digest,
            features=told.features or differences,
            verified=told.verified + verified,
            mismatched=told.mismatched + mismatched,
            signature=one.signature,
        )
    return told


def mismatch(told: Iterable[Told]) -> str | None:
    """Return why the gateway breaks the assignment law, from all servers' counts; None if it does not."""
    every = list(told)
    verified, mismatched = sum(one.verified for one in every), sum(one.mismatched for one in every)
    if mismatched < _LEAST_MISMATCHES or verified < _LEAST_REQUESTS or mismatched <= MISMATCH_SHARE * verified:
        return None
    return f"{mismatched} of {verified} requests came to another arm than their unit's"


@dataclass(slots=True)
class Reports:
    """Reads reports, and keeps the last of each pod."""

    session: aiohttp.ClientSession
    now: Callable[[], float]
    """A clock that never goes back, seconds."""
    timeout_s: float
    every_s: float
    """How old a report may be before it is read anew."""
    pauses_s: tuple[float, ...] = (1.0, 3.0, 9.0)
    """Before each further attempt at a report that could not be read, at most; then the next refresh tries."""
    _random: random.Random = field(default_factory=random.Random)
    _known: dict[str, _Known] = field(default_factory=dict)
    _reading: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def told(self, addresses: Iterable[Address], salt: str) -> Told:
        """Return what these pods last told; requests are those of the experiment ``salt``."""
        return _summed((self._known[address.pod] for address in addresses if address.pod in self._known), salt)

    def informed(self, addresses: Iterable[Address], notice: Notice | None) -> bool:
        """Return whether all of these pods are known to have read a notice; without one there is nothing to read."""
        return notice is None or all(self._knows(address, notice) for address in addresses)

    def _knows(self, address: Address, notice: Notice) -> bool:
        known = self._known.get(address.pod)
        if known is None:
            return self.now() - notice.since_s >= _UNHEARD_S
        told = known.report.feedback
        return told.digest == notice.digest if told.digest else told.configured

    def refresh(self, addresses: Iterable[Address], notice: Notice | None, read: Callable[[], None]) -> None:
        """Have reports read that are missing, or old, or of pods that have not read the notice yet.

        Args:
            addresses: Of the pods.
            notice: What they are told of feedback; None if that is nothing.
            read: Called after each report that says something new.
        """
        for address in addresses:
            known = self._known.get(address.pod)
            every_s = self.every_s if self.informed((address,), notice) else min(self.every_s, UNINFORMED_S)
            old = known is None or self.now() - known.read_s >= every_s
            if old and address.pod not in self._reading:
                task = asyncio.create_task(self._read(address, read))
                self._reading[address.pod] = task
                task.add_done_callback(functools.partial(self._ended, address.pod))

    async def close(self) -> None:
        """End what is being read."""
        for task in tuple(self._reading.values()):
            task.cancel()
        await self.session.close()

    def _ended(self, pod: str, task: asyncio.Task[None]) -> None:
        del task
        self._reading.pop(pod, None)

    async def _read(self, address: Address, read: Callable[[], None]) -> None:
        """Read a report, and try again a few times if it cannot be had."""
        report = await self._fetched(address)
        for pause_s in self.pauses_s:
            if report is not None:
                break
            await asyncio.sleep(self._random.uniform(0.5, 1.0) * pause_s)
            report = await self._fetched(address)
        if report is not None:
            self._take(address, *report, read)

    async def _fetched(self, address: Address) -> tuple[ServerReport, Signature] | None:
        try:
            asked = self.session.get(address.url, allow_redirects=False)
            async with asyncio.timeout(self.timeout_s), asked as answer:
                content = await answer.content.read(_MAX_BYTES)
                answer.raise_for_status()
            document = _json(content)
            return ServerReport.from_metadata(document), signature_of(document)
        except (OSError, aiohttp.ClientError, TimeoutError, ReportError) as error:
            _log.info("a server's report could not be read", extra={"url": address.url, "error": str(error)[:200]})
            return None

    def _take(self, address: Address, report: ServerReport, signature: Signature, read: Callable[[], None]) -> None:
        """Keep a report, and forget those of pods that have gone."""
        before = self._known.get(address.pod)
        now = self.now()
        self._known.pop(address.pod, None)  # the pod read last stands last
        self._known[address.pod] = (
            before.followed_by(report, signature, now) if before else _Known(report, signature, now)
        )
        while now - (oldest := next(iter(self._known.items())))[1].read_s > _FORGOTTEN_S:
            del self._known[oldest[0]]
        if before is None or before.report != report:
            read()


def _json(content: bytes) -> dict[str, object]:
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise ReportError("no report: not JSON") from error
    if not isinstance(found, dict):
        raise ReportError("no report: not a JSON object")
    return found
