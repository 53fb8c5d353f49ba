"""Kopf as the transport of ModelDeployments: its handlers do nothing but hand on what they hear.

Kopf has a thread and an event loop of its own: ``kopf.operator`` takes every task of its loop for its own and cancels
them all when it ends. It ends on errors that we can outlive, such as a 500 on a watch, so it is started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import kopf

from fairlead_operator.platforms.kubernetes.connection import Connection
from fairlead_operator.platforms.kubernetes.kinds import GROUP, MODEL_DEPLOYMENT

_log = logging.getLogger(__name__)

Heard: TypeAlias = Callable[[Any, bool], None]
"""Takes in an object and whether it has been deleted."""

_STOP_DEADLINE_S = 4.0
_MOST_FAILURES = 5
_FORGIVEN_AFTER_S = 300.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0


def kopf_settings(*, attempt_s: float, watch_timeout_s: float, silence_s: float) -> kopf.OperatorSettings:
    """Return Kopf's settings: nothing of its own is written to the cluster, and nothing waits for ever."""
    settings = kopf.OperatorSettings()
    settings.process.ultimate_exiting_timeout = None  # ours: it would kill the process in spite of the other parts
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.watching.server_timeout = int(watch_timeout_s)  # Kopf sends it as it stands, and the API takes no 300.0
    settings.watching.client_timeout = watch_timeout_s + 10
    settings.watching.connect_timeout = 5.0
    settings.watching.inactivity_timeout = silence_s
    settings.watching.chunk_size = 200
    settings.networking.request_timeout = attempt_s
    settings.networking.connect_timeout = 5.0
    settings.networking.error_backoffs = [0.5, 1.0, 2.0, 4.0, 8.0]
    settings.persistence.finalizer = f"{GROUP}/finalizer"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=GROUP)
    return settings


def registry(heard: Heard, login: Callable[[], Awaitable[kopf.ConnectionInfo]]) -> kopf.OperatorRegistry:
    """Return all of Kopf's handlers.

    Args:
        heard: Called on Kopf's own thread; returns at once.
        login: Gives the credentials, read again each time.
    """
    made = kopf.OperatorRegistry()

    @kopf.on.login(registry=made)
    async def credentials(**_: Any) -> kopf.ConnectionInfo:
        return await login()

    @kopf.on.event(GROUP, MODEL_DEPLOYMENT.version, MODEL_DEPLOYMENT.plural, registry=made)
    async def deployment(event: Any, **_: Any) -> None:
        heard(event["object"], event["type"] == "DELETED")

    return made


def connection_info(connection: Connection) -> kopf.ConnectionInfo:
    """Return our own connection as Kopf describes one."""
    configuration = connection.configuration
    _, _, token = (configuration.api_key.get("BearerToken") or "").rpartition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        token=token or None,
        username=configuration.username or None,
        password=configuration.password or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
    )


class Transport:
    """Runs Kopf and hands what it hears to the loop that :meth:`run` runs on."""

    def __init__(
        self,
        connection: Connection,
        settings: kopf.OperatorSettings,
        heard: Heard,
        *,
        namespaces: tuple[str, ...],
        now: Callable[[], float],
        randomness: random.Random,
        restarted: Callable[[], None],
    ) -> None:
        """Make a transport.

        Args:
            connection: Where and who.
            settings: Kopf's.
            heard: Takes in objects; called on the loop of :meth:`run`.
            namespaces: Where to watch; empty for everywhere.
            now: A clock that never goes back, seconds.
            randomness: Spreads pauses.
            restarted: Counts.
        """
        self._connection = connection
        self._settings = settings
        self._heard = heard
        self._namespaces = namespaces
        self._now = now
        self._random = randomness
        self._restarted = restarted
        self.is_up = False
        """Whether Kopf runs at this moment."""

    async def run(self) -> None:
        """Run Kopf until cancelled.

        Raises:
            RuntimeError: It ends again and again.
        """
        failures: list[float] = []
        while True:
            ended = await self._run_once()
            failures = [*(at for at in failures if self._now() - at < _FORGIVEN_AFTER_S), self._now()]
            if len(failures) >= _MOST_FAILURES:
                raise RuntimeError("kopf ends again and again") from ended
            _log.warning("kopf has ended and is started again", extra={"error": repr(ended)})
            self._restarted()
            pause_s = min(_FIRST_PAUSE_S * 2.0 ** (len(failures) - 1), _LONGEST_PAUSE_S)
            await asyncio.sleep(pause_s * self._random.uniform(0.5, 1.0))

    async def _run_once(self) -> BaseException | None:
        """Run Kopf in a thread until it ends; return what ended it."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[BaseException | None] = loop.create_future()
        thread = _KopfThread(lambda stop: self._operate(loop, stop), loop, ended)
        thread.start()
        self.is_up = True
        try:
            return await asyncio.shield(ended)
        finally:
            self.is_up = False
            thread.stop()
            await asyncio.wait({ended}, timeout=_STOP_DEADLINE_S)

    async def _operate(self, loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
        """Run Kopf; on its own thread's loop."""

        def heard(resource: Any, deleted: bool) -> None:
            loop.call_soon_threadsafe(self._heard, resource, deleted)

        async def login() -> kopf.ConnectionInfo:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_renew(self._connection), loop))
            return connection_info(self._connection)

        await kopf.operator(
            registry=registry(heard, login),
            settings=self._settings,
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
            standalone=True,
            stop_flag=stop,
        )


async def _renew(connection: Connection) -> None:
    await connection.renew()


class _KopfThread(threading.Thread):
    """One life of Kopf. A daemon: a Kopf that hangs does not keep the process from ending."""

    def __init__(
        self,
        operate: Callable[[asyncio.Event], Awaitable[None]],
        loop: asyncio.AbstractEventLoop,
        ended: asyncio.Future[BaseException | None],
    ) -> None:
        super().__init__(name="kopf", daemon=True)
        self._operate = operate
        self._loop = loop
        self._ended = ended
        self._own_loop = asyncio.new_event_loop()
        self._flag = asyncio.Event()

    def stop(self) -> None:
        with contextlib.suppress(RuntimeError):  # its loop is closed
            self._own_loop.call_soon_threadsafe(self._flag.set)

    def run(self) -> None:
        problem: BaseException | None = None
        try:
            with asyncio.Runner(loop_factory=lambda: self._own_loop) as runner:
                runner.run(self._main())
        except BaseException as error:  # noqa: BLE001 -- told to the loop that waits for it
            problem = error
        with contextlib.suppress(RuntimeError):  # nobody waits any more
            self._loop.call_soon_threadsafe(self._tell, problem)

    async def _main(self) -> None:
        await self._operate(self._flag)

    def _tell(self, problem: BaseException | None) -> None:
        if not self._ended.done():
            self._ended.set_result(problem)
