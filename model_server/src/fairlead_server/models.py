"""The models of a repository in one process: loaded at the start, and again or no more when a client says so.

A model is loaded beside the one that serves, in threads, and takes its place between two requests; what the old one
was asked is still answered by it, then it is closed. Loads and unloads of one name come one after the other.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from fairlead_server import logs
from fairlead_server.errors import LoadRefused, StartupError, UnknownModel
from fairlead_server.predict.repository import FoundModel, ModelPlace, find_models
from fairlead_server.protocol.service import LOADING, UNLOADED, Served, Service, Version

_LOG = logging.getLogger(__name__)
ALL: Final = "*"
"""Stands for the name of every model of the repository."""
_POLL_S: Final = 0.02
_UNLOADED: Final = Version(reason=UNLOADED, wanted=False)


class Opener(Protocol):
    """Loads one version of a model, and what belongs to its name."""

    async def open(self, place: ModelPlace) -> Served:
        """Load and warm up a model, without holding up the event loop.

        Raises:
            StartupError: It cannot be served; the message has the reason.
        """

    async def forget(self, name: str) -> None:
        """Report what is left to report on a model that is no longer served."""

    async def close(self, deadline_s: float) -> None:
        """Report what is left to report on all models, within ``deadline_s``."""


class ModelSet:
    """Keeps a service's models as the repository has them."""

    def __init__(
        self, repository: Path, service: Service, opener: Opener, *, latest_only: bool, drain_deadline_s: float
    ) -> None:
        """Make the set, with nothing loaded.

        Args:
            repository: Folder of models; see ``predict.repository``.
            service: What answers with them.
            opener: What loads them.
            latest_only: Whether to serve the highest version of each alone.
            drain_deadline_s: Longest wait for what a model that was replaced still has to answer.
        """
        self._repository = repository
        self._service = service
        self._opener = opener
        self._latest_only = latest_only
        self._drain_deadline_s = drain_deadline_s
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._retiring: set[asyncio.Task[None]] = set()

    async def start(self, wanted: Collection[str]) -> None:
        """Load models, one after the other; one that cannot be loaded is known by the reason, and stops no other.

        Args:
            wanted: Names; ``ALL`` among them for every model.

        Raises:
            StartupError: There is no such folder, or no model to be served in it.
        """
        found = await self._find()
        missing = sorted(set(wanted) - found.keys() - {ALL})
        if missing or (wanted and not found):
            what = f"no model {missing[0]}" if missing else "no model"
            raise StartupError(f"{self._repository}: has {what}; it wants NAME.onnx, or NAME/VERSION/model.onnx")
        to_load = [name for name in found if name in wanted or ALL in wanted]
        for name, model in found.items():
            self._service.put(name, {each: Version() if name in to_load else _UNLOADED for each in _versions(model)})
        self._service.begin()
        for name in to_load:
            async with self._locks[name]:
                self._service.put(name, await self._open_each(name, found[name]))

    async def load(self, name: str) -> None:
        """Load a model, or load it again.

        Raises:
            UnknownModel: The repository has none of that name.
            LoadRefused: It cannot be served; what was served before still is.
        """
        await self._find_one(name)  # before anything is kept under a name that a client made up
        async with self._locks[name]:
            model = await self._find_one(name)
            before = self._service.versions_of(name)
            served = [known.served for known in before.values() if known.served is not None]
            if not served:
                self._service.put(name, dict.fromkeys(_versions(model), Version(reason=LOADING, wanted=False)))
            try:
                opened = await self._open_all(name, model)
            except BaseException as error:  # the client may have given up, too
                if not served:
                    reason = error.reason if isinstance(error, LoadRefused) else UNLOADED
                    self._service.put(name, dict.fromkeys(_versions(model), Version(reason=reason, wanted=False)))
                    await self._opener.forget(name)
                raise
            finally:
                self._service.watch(name)
            self._service.put(name, {each.schema.version: Version(each) for each in opened})
            _LOG.info("loaded by request model=%s versions=%s", name, ",".join(self._service.versions_of(name)))
            self._retire(name, served, forget=False)

    async def unload(self, name: str) -> None:
        """Stop serving a model; what it was asked is still answered.

        Raises:
            UnknownModel: There is no such model.
        """
        if not self._service.versions_of(name):
            raise UnknownModel(f"model {name!r} is not served here", field="model_name")
        async with self._locks[name]:
            before = self._service.versions_of(name)
            served = [known.served for known in before.values() if known.served is not None]
            self._service.put(name, dict.fromkeys(before, _UNLOADED))
            _LOG.info("unloaded by request model=%s", name)
            self._retire(name, served, forget=True)

    async def close(self, deadline_s: float) -> None:
        """Report what is left to report, within ``deadline_s``; the service closes the models."""
        for task in self._retiring:
            task.cancel()
        if self._retiring:
            await asyncio.wait(self._retiring)
        await self._opener.close(deadline_s)

    async def _find(self) -> Mapping[str, FoundModel]:
        try:
            return await asyncio.to_thread(find_models, self._repository, latest_only=self._latest_only)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise StartupError(f"{self._repository}: cannot be read: {reason}; check --model-repository") from error

    async def _find_one(self, name: str) -> FoundModel:
        try:
            model = (await self._find()).get(name)
        except StartupError as error:
            raise LoadRefused(name, str(error)) from error
        if model is None:
            raise UnknownModel(f"the repository has no model {name!r}", field="model_name")
        return model

    async def _open_each(self, name: str, model: FoundModel) -> Mapping[str, Version]:
        """Load every version that can be, and say of the others why they cannot."""
        if model.problem:
            return {"": Version(reason=model.problem)}
        versions: dict[str, Version] = {}
        for place in model.places:
            try:
                served = await self._open(place)
            except LoadRefused as error:
                versions[place.version or ""] = Version(reason=error.reason)
                _LOG.error("model not loaded model=%s version=%s reason=%s", name, place.version or "", error.reason)
            else:
                versions[served.schema.version] = Version(served)
        return versions

    async def _open_all(self, name: str, model: FoundModel) -> Sequence[Served]:
        if model.problem:
            raise LoadRefused(name, model.problem)
        opened: list[Served] = []
        try:
            for place in model.places:
                opened.append(await self._open(place))  # noqa: PERF401 -- those opened are closed if one fails
        except BaseException:
            for served in opened:
                await served.predictor.close()
            raise
        return opened

    async def _open(self, place: ModelPlace) -> Served:
        """Load a version.

        Raises:
            LoadRefused: It cannot be served.
        """
        try:
            return await self._opener.open(place)
        except StartupError as error:
            raise LoadRefused(place.name, str(error)) from error
        except Exception as error:
            kind = type(error).__name__
            _LOG.exception(
                "load failed model=%s error=%s at=%s", place.name, kind, logs.place_of(error), exc_info=False
            )
            raise LoadRefused(place.name, f"{kind}; see the server's log") from error

    def _retire(self, name: str, models: list[Served], *, forget: bool) -> None:
        """Close models once they have answered what they were asked."""
        task = asyncio.get_running_loop().create_task(self._end(name, models, forget=forget))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _end(self, name: str, models: list[Served], *, forget: bool) -> None:
        loop = asyncio.get_running_loop()
        end_s = loop.time() + self._drain_deadline_s
        while models:
            served = models.pop()
            while served.predictor.busy and loop.time() < end_s:  # noqa: ASYNC110 -- what counts is too hot to tell
                await asyncio.sleep(_POLL_S)
            await asyncio.sleep(_POLL_S)  # an answer is still to be written, and counted
            await served.predictor.close()
            del served
        if forget:
            async with self._locks[name]:
                if not any(known.served for known in self._service.versions_of(name).values()):
                    await self._opener.forget(name)
        await asyncio.to_thread(_give_back_memory)


def _versions(model: FoundModel) -> Sequence[str]:
    return [place.version or "" for place in model.places] or [""]


def _give_back_memory() -> None:
    """Return freed memory to the system: the allocator keeps a model's otherwise."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)
