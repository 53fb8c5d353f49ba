"""Evidence on one machine: the embedded ledger, what servers are told of it, and what the gateway tells it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx

from fairlead.clock import Clock
from fairlead.feedback.keys import deployment_of
from fairlead.feedback.messages import ExposureReport
from fairlead.feedback.serving import Feedback
from fairlead_operator.core.desired import Desired
from fairlead_operator.core.evidence import NO_EVIDENCE, Evidence
from fairlead_operator.core.record import Record
from fairlead_operator.platforms.local.ledger import LedgerTask, LocalLedger
from fairlead_operator.platforms.local.processes import ProcessRecord
from fairlead_operator.platforms.local.state import State
from fairlead_operator.platforms.local.unanswered import UnansweredLog
from fairlead_operator.runtime.evidence import LedgerEvidence, Terms
from fairlead_operator.runtime.ledger import LedgerClient

_LOG = logging.getLogger(__name__)
_TELL_EVERY_S = 0.5
_TIMEOUT_S = 5.0


class LocalEvidence:
    """What one run of ``fairlead up`` has to do with its experiments' ledger."""

    def __init__(
        self,
        state: State,
        *,
        command: Sequence[str],
        clock: Clock,
        log: Path,
        new_id: Callable[[], str],
        remember: Callable[[int], None],
        port: int | None,
        every_s: float,
    ) -> None:
        """Describe it; nothing is started before :meth:`keep` needs it.

        Args:
            state: Where keys, evidence and what servers read live.
            command: Program and arguments of a ledger, without where it listens.
            clock: The experiment's time.
            log: Where the gateway writes of requests that no server answered.
            new_id: Makes a name that was never given before.
            remember: Called with the ledger's port whenever its process has changed.
            port: Where it listened last.
            every_s: How old an analysis may be before another is asked for, real seconds.
        """
        self._state = state
        self._command = command
        self._clock = clock
        self._log = log
        self._new_id = new_id
        self._remember = remember
        self._port = port
        self._ledger: LocalLedger | None = None
        self._kept: Desired | None = None
        self._told: str | None = None
        """Address that servers were told."""
        self._unanswered: UnansweredLog | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._source = LedgerEvidence(
            client=LedgerClient(httpx.AsyncClient(trust_env=False), _TIMEOUT_S, lambda: None),
            terms=Terms(every_s, lambda: self.url),
            now=time.monotonic,
            randomness=random.Random(),  # noqa: S311 -- spreads pauses; nothing secret
        )

    @property
    def url(self) -> str | None:
        """Address of the ledger; None if none is needed."""
        return self._ledger.url if self._ledger else None

    @property
    def record(self) -> ProcessRecord | None:
        """The ledger's process; None if there is none at the moment."""
        return self._ledger.record if self._ledger else None

    def keep(self, desired: Desired) -> None:
        """Bring up what ``desired`` needs, and tell servers where it is; an experiment that is over keeps its page.

        Raises:
            StateUnreadable: The keys are damaged.
        """
        if self._ledger is None and (desired.is_judged or self._database.exists()):
            self._start()
        self._kept = desired
        self._tell_servers(desired)

    def _tell_servers(self, desired: Desired) -> None:
        """Tell servers where the ledger is now.

        Raises:
            StateUnreadable: The keys are damaged.
        """
        self._told = self.url
        if self._ledger is None or not desired.is_judged:
            self._state.tell_servers(None)
            return
        design = desired.design
        keys = self._state.ledger_keys().of(deployment_of(desired.salt))
        covariates = {design.salt: design.covariate} if design is not None and design.covariate else {}
        self._state.tell_servers(Feedback(self._ledger.url, keys, covariates=covariates))

    def look(self, desired: Desired, record: Record, changed: Callable[[], None]) -> Evidence:
        """Return what the ledger is known to have said; see ``EvidenceSource``. One that just starts is not asked."""
        if self._ledger is not None and self._ledger.is_starting:
            return NO_EVIDENCE
        return self._source.look(desired, record, changed)

    async def stop(self) -> None:
        """Tell what is left to tell, and end the ledger; servers and gateway have ended before."""
        await self._source.close()
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._ledger is not None:
            if self._ledger.is_ready:
                async with self._client() as client:
                    await self._tell_all(client)
            if self._unanswered is not None:
                self._unanswered.begin_anew_if_large()
            await self._ledger.stop()
            self._remember(self._ledger.port)

    @property
    def _database(self) -> Path:
        return self._state.ledger / "ledger.sqlite"

    def _start(self) -> None:
        root = self._state.ledger_keys()
        command = [
            *self._command,
            *("--database", f"sqlite:///{self._database}", "--keys", str(self._state.ledger_keys_file), "--open"),
        ]
        task = LedgerTask(command, self._state.logs / "ledger.log")
        self._ledger = LocalLedger(task, port=self._port, changed=self._ledger_has_changed)
        key = self._state.route_key()
        self._unanswered = UnansweredLog(self._log, key=key, root=root, new_id=self._new_id)
        self._tasks = [asyncio.create_task(self._ledger.run()), asyncio.create_task(self._keep_telling())]

    def _ledger_has_changed(self) -> None:
        if self._ledger is not None:
            self._remember(self._ledger.port)
            if self._kept is not None and self._told != self.url:  # its port is somebody else's now
                self._tell_servers(self._kept)
            if self._ledger.is_ready:
                self._source.ask_again()

    async def _keep_telling(self) -> None:
        async with self._client() as client:
            while True:
                await asyncio.sleep(_TELL_EVERY_S)
                if self._ledger is not None and self._ledger.is_ready:
                    await self._tell_all(client)

    async def _tell_all(self, client: httpx.AsyncClient) -> None:
        """Tell the ledger of requests that no server answered, until there is nothing to tell or it does not listen."""
        while self._unanswered is not None:
            report = self._unanswered.next_report(self._clock.now_us())
            if report is None or not await self._tell(client, report):
                return
            self._unanswered.told()

    async def _tell(self, client: httpx.AsyncClient, report: ExposureReport) -> bool:
        headers = {"content-type": "application/json"}
        try:
            answer = await client.post(f"{self.url}/v1/exposures", content=report.model_dump_json(), headers=headers)
        except httpx.HTTPError as error:
            _LOG.warning("unanswered requests not told error=%s", type(error).__name__)
            return False
        if answer.is_error:
            _LOG.warning("unanswered requests not taken status=%d", answer.status_code)
        # What is refused for its content would be refused for ever; it is given up, for the sake of what follows.
        return answer.is_success or answer.status_code in {httpx.codes.BAD_REQUEST, httpx.codes.UNPROCESSABLE_ENTITY}

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False)
