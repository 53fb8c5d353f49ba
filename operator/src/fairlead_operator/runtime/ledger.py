"""The ledger as the operator knows it: where a design is registered, evidence is asked for and decisions are told.

Raises nothing but :class:`LedgerError`; a call has one attempt and a deadline, for whoever calls comes again.
"""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import httpx
from pydantic import ValidationError

from fairlead.experiment.decision import Decision
from fairlead.experiment.design import Design, canonical
from fairlead.experiment.report import Report
from fairlead.feedback.messages import ExposureReport
from fairlead_operator.core.record import Recorded
from fairlead_operator.errors import OperatorError

CallObserver: TypeAlias = Callable[[str, str, float], None]
"""Takes in a call's name, its HTTP code (or timeout, connection, content) and its duration in seconds."""

_MOST_BYTES = 16 * 1024 * 1024
_SHOWN = 300
_OK, _CREATED, _NOT_FOUND, _CONFLICT = 200, 201, 404, 409
_BAD_REQUEST, _TOO_LARGE, _UNPROCESSABLE = 400, 413, 422
_SERVER_ERRORS = 500
_TOO_MANY = 429


class LedgerError(OperatorError):
    """The ledger does not answer, or not as it should."""

    retryable = True


class LedgerRefused(LedgerError):
    """The ledger answers and refuses."""


class DesignConflict(LedgerRefused):
    """The ledger has another design under the same experiment."""


class ReportRefused(LedgerRefused):
    """The ledger can make nothing of a report, and never will."""


class ExperimentUnknown(LedgerRefused):
    """The ledger does not know the experiment (any more)."""


def _ignore(call: str, code: str, duration_s: float) -> None:
    """Count nothing."""


@dataclass(frozen=True, slots=True)
class LedgerClient:
    """Speaks to ledgers."""

    session: httpx.AsyncClient
    timeout_s: float
    """Deadline of one call."""
    api_key: Callable[[], str | None]
    """Gives ``<id>.<secret>`` of role operator, read anew each time; None for a ledger that is open."""
    observe: CallObserver = _ignore
    keyed: str | None = None
    """The one ledger that is sent the API key, where users may name others; None: every one."""

    async def register(self, ledger: str, design: Design) -> None:
        """Have ``ledger`` take a design; the same one may be registered again.

        Raises:
            DesignConflict: It has another one.
            LedgerError: It does not answer, or refuses.
        """
        answer = await self._call("register", "PUT", _of(ledger, design.salt), content=canonical(design))
        if answer.status_code == _CONFLICT:
            raise DesignConflict(_said(answer))
        _require(answer, _OK, _CREATED)

    async def analysis(self, ledger: str, salt: str, phase: int) -> Report:
        """Return what is known of one phase.

        Raises:
            ExperimentUnknown: The design is not registered.
            LedgerError: It does not answer, or refuses, or answers something else.
        """
        answer = await self._call("analysis", "GET", f"{_of(ledger, salt)}/analysis", params={"phase": str(phase)})
        if answer.status_code == _NOT_FOUND:
            raise ExperimentUnknown(_said(answer))
        _require(answer, _OK)
        try:
            report = Report.model_validate_json(answer.content)
        except ValidationError as error:
            place = ".".join(map(str, error.errors()[0]["loc"]))
            raise LedgerError(f"the answer is no report ({place}); are ledger and operator of one version?") from None
        if (report.salt, report.phase) != (salt, phase):
            raise LedgerError(f"the report is of phase {report.phase} of {report.salt}")
        return report

    async def decide(self, ledger: str, salt: str, decision: Decision) -> Recorded:
        """Tell what was decided; return where its record is. Told again it changes nothing.

        Raises:
            ExperimentUnknown: The design is not registered.
            LedgerError: It does not answer, or refuses.
        """
        answer = await self._call("decide", "POST", f"{_of(ledger, salt)}/decision", content=canonical(decision))
        address = f"{_of(ledger, salt)}/record"
        if answer.status_code == _CONFLICT:  # another decision was told before: that one has the record
            return Recorded(address, None)
        if answer.status_code == _NOT_FOUND:
            raise ExperimentUnknown(_said(answer))
        _require(answer, _OK, _CREATED)
        found = _json(answer)
        digest = found.get("hash") if isinstance(found, dict) else None
        return Recorded(address, digest if isinstance(digest, str) else None)

    async def tell(self, ledger: str, report: ExposureReport, api_key: str | None) -> None:
        """Tell what a gateway knows of requests. Told again it counts once.

        Args:
            ledger: URL.
            report: What is told.
            api_key: Of role server; None for a ledger that is open, or not ours.

        Raises:
            ReportRefused: It can make nothing of it.
            LedgerError: It does not answer, or refuses.
        """
        content = await asyncio.to_thread(lambda: gzip.compress(report.model_dump_json().encode(), mtime=0))
        url, packed = f"{ledger}/v1/exposures", {"content-encoding": "gzip"}
        answer = await self._call("tell", "POST", url, content=content, headers=packed, api_key=lambda: api_key)
        if answer.status_code in {_BAD_REQUEST, _TOO_LARGE, _UNPROCESSABLE}:
            raise ReportRefused(f"HTTP {answer.status_code}: {_said(answer)}")
        _require(answer, _OK)

    async def _call(
        self,
        name: str,
        method: str,
        url: str,
        *,
        content: bytes | None = None,
        params: Mapping[str, str] = {},
        headers: Mapping[str, str] = {},
        api_key: Callable[[], str | None] | None = None,
    ) -> httpx.Response:
        is_keyed = self.keyed is None or url.startswith(f"{self.keyed.rstrip('/')}/")
        key = api_key() if api_key is not None else self.api_key() if is_keyed else None
        sent = {"content-type": "application/json", **headers} if content is not None else dict(headers)
        sent |= {"authorization": f"Bearer {key}"} if key else {}
        started = time.monotonic()
        code = "connection"
        try:
            request = self.session.build_request(
                method, url, content=content, params=params, headers=sent, timeout=self.timeout_s
            )
            answer = await self.session.send(request, follow_redirects=False)
            code = str(answer.status_code)
        except httpx.TimeoutException as error:
            code = "timeout"
            raise LedgerError(f"{url}: no answer within {self.timeout_s:g}s") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise LedgerError(f"{url}: {str(error)[:_SHOWN] or type(error).__name__}") from error
        finally:
            self.observe(name, code, time.monotonic() - started)
        if answer.status_code >= _SERVER_ERRORS or answer.status_code == _TOO_MANY:
            raise LedgerError(f"{url}: HTTP {answer.status_code}: {_said(answer)}")
        if len(answer.content) > _MOST_BYTES:
            raise LedgerError(f"{url}: an answer of {len(answer.content)} bytes")
        return answer


def page_of(ledger: str, salt: str) -> str:
    """Return the address of an experiment's page."""
    return f"{ledger.rstrip('/')}/experiments/{salt}"


def _of(ledger: str, salt: str) -> str:
    return f"{ledger.rstrip('/')}/v1/experiments/{salt}"


def _require(answer: httpx.Response, *codes: int) -> None:
    if answer.status_code not in codes:
        raise LedgerRefused(f"{answer.request.url}: HTTP {answer.status_code}: {_said(answer)}")


def _json(answer: httpx.Response) -> Any:
    """Return the content of an answer; its text if it is no JSON."""
    try:
        return answer.json()
    except ValueError:
        return answer.text


def _said(answer: httpx.Response) -> str:
    """Return what a ledger's answer says for people; of anything else nothing, for it may be no ledger's."""
    found = _json(answer)
    said = found.get("error") if isinstance(found, dict) else None
    return " ".join(said.split())[:_SHOWN] if isinstance(said, str) else "an answer that is no ledger's"
