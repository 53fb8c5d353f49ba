"""The ledger as a command asks it: one attempt, a deadline, and errors that say what to do."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from fairlead.cli.errors import USAGE, CommandError
from fairlead.experiment.decision import Action
from fairlead.experiment.design import Design
from fairlead.experiment.evidence import Evidence
from fairlead.experiment.report import Reason, Report, Verdict

KEY_VARIABLE = "FAIRLEAD_LEDGER_API_KEY"
"""Holds the API key, ID.SECRET, where no file is given."""

_TIMEOUT_S = 30.0
_MOST_BYTES = 64 * 1024**2
_SHOWN = 300
_UNAUTHENTICATED, _NOT_FOUND = 401, 404
_FAILURES = 400

M = TypeVar("M", bound=BaseModel)


class Last(BaseModel):
    """What was said of an experiment last."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    phase: int
    verdict: Verdict
    reason: Reason
    at_us: int
    action: Action | None = None
    """What was decided on it; None before."""


class Told(BaseModel):
    """One experiment as the ledger tells it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    salt: str
    state: str
    created_us: int
    ended_us: int | None = None
    erased: int = 0
    """Units that were erased."""
    design: Design | None = None
    last: Last | None = None
    """None before the first look."""


class _List(BaseModel):
    model_config = ConfigDict(extra="ignore")

    experiments: tuple[Told, ...]


@dataclass(frozen=True, slots=True)
class Ledger:
    """A ledger's HTTP side, for reading."""

    address: str
    """Without a final slash."""
    api_key: str | None = None

    def experiments(self) -> tuple[Told, ...]:
        """Return every experiment, the latest first."""
        return self._read("/v1/experiments", _List).experiments

    def experiment(self, salt: str) -> Told:
        """Return one experiment."""
        return self._read(f"/v1/experiments/{salt}", Told)

    def evidence(self, salt: str) -> Evidence:
        """Return what was seen of it."""
        return self._read(f"/v1/experiments/{salt}/evidence", Evidence)

    def analysis(self, salt: str, phase: int) -> Report:
        """Return what the evidence of one phase says."""
        return self._read(f"/v1/experiments/{salt}/analysis", Report, {"phase": str(phase)})

    def record(self, salt: str) -> bytes | None:
        """Return the decision record as it was written; None while nothing was decided."""
        answer = self._get(f"/v1/experiments/{salt}/record", {})
        return None if answer.status_code == _NOT_FOUND else self._good(answer)

    def page(self, salt: str) -> str:
        """Return the address of its page."""
        return f"{self.address}/experiments/{salt}"

    def _read(self, path: str, kind: type[M], query: Mapping[str, str] | None = None) -> M:
        content = self._good(self._get(path, query or {}))
        try:
            return kind.model_validate_json(content)
        except ValidationError as error:
            place = ".".join(map(str, error.errors()[0]["loc"])) or "the whole"
            message = f"{self.address}{path}: {place} is not as expected; are ledger and fairlead of one version?"
            raise CommandError(message) from None

    def _get(self, path: str, query: Mapping[str, str]) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        url = f"{self.address}{path}"
        try:
            with httpx.Client(timeout=_TIMEOUT_S, trust_env=False) as client:
                return client.get(url, params=dict(query), headers=headers)
        except httpx.InvalidURL:
            raise CommandError(f"--ledger {self.address}: is no address; give http://HOST:PORT", USAGE) from None
        except (httpx.HTTPError, OSError) as error:
            why = str(error)[:_SHOWN] or type(error).__name__
            raise CommandError(f"{url}: {why}; is the ledger running there? (--ledger)") from None

    def _good(self, answer: httpx.Response) -> bytes:
        url = str(answer.request.url)
        if answer.status_code == _UNAUTHENTICATED:
            raise CommandError(f"{url}: {_said(answer)} (--api-key FILE, or ${KEY_VARIABLE})")
        if answer.status_code >= _FAILURES:
            raise CommandError(f"{url}: HTTP {answer.status_code}: {_said(answer)}")
        if len(answer.content) > _MOST_BYTES:
            raise CommandError(f"{url}: an answer of {len(answer.content)} bytes")
        return answer.content


def ledger_of(address: str | None, api_key: Path | None, state: Path) -> Ledger | None:
    """Return the ledger that is meant: the one at ``address``, else that of ``fairlead up`` in a state folder.

    Raises:
        CommandError: The address is none, or the file of the API key cannot be read.
    """
    found = address or _embedded(state)
    if found is None:
        return None
    if not found.startswith(("http://", "https://")):
        raise CommandError(f"--ledger {found}: is no address; give http://HOST:PORT", USAGE)
    return Ledger(found.rstrip("/"), _key(api_key))


def _key(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get(KEY_VARIABLE) or None
    try:
        return file.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "is no text"
        raise CommandError(f"--api-key {file}: {why}", USAGE) from None


def _embedded(state: Path) -> str | None:
    """Return the address of a ledger that ``fairlead up`` runs, or ran last, in a state folder."""
    ports = [port for file in sorted(state.glob("*/state.json")) if (port := _port(file))]
    return f"http://127.0.0.1:{ports[0]}" if len(set(ports)) == 1 else None


def _port(file: Path) -> int | None:
    try:
        port = json.loads(file.read_bytes()).get("ledger_port")
    except (OSError, ValueError, AttributeError):
        return None
    return port if isinstance(port, int) else None


def _said(answer: httpx.Response) -> str:
    said: Any
    try:
        said = answer.json()
    except ValueError:
        said = answer.text
    for name in ("detail", "message", "error"):
        if isinstance(said, dict) and name in said:
            said = said[name]
    return " ".join(str(said).split())[:_SHOWN]
