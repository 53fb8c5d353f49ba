"""What the model servers count, read from their metrics through the API server while they live."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
from prometheus_client.parser import text_string_to_metric_families

from e2e.accounts import Tally
from e2e.errors import NotSeen
from fairlead_operator.platforms.kubernetes.kinds import DEPLOYMENT_LABEL, POD
from support.cluster_api import Resource
from support.kubeconfig import credentials_of

_EVERY_S = 0.4
_TIMEOUT_S = 2.0
"""Short: whoever does not answer keeps the next reading waiting."""
_AT_ONCE = 8
_WHOLE_S = 90.0
"""How long the first and the last reading may take until every pod has answered."""
_SUCCESS = {"200", "OK"}
_GONE = (httpx.HTTPStatusError, httpx.TransportError)

Counters = Mapping[str, float]


class Counting:
    """Reads the counters of a deployment's pods again and again while it is entered; pods that end keep their last."""

    def __init__(self, kubeconfig: Path, namespace: str, deployment: str) -> None:
        """Make it; nothing is read yet."""
        self._client = credentials_of(kubeconfig).client(_TIMEOUT_S)
        self._pods = POD.path(namespace)
        self._selector = {"labelSelector": f"{DEPLOYMENT_LABEL}={deployment}"}
        self._tallies = {name: Tally() for name in ("counted", "failed", "mismatched", "exposed")}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="counting")
        self._readers = ThreadPoolExecutor(_AT_ONCE, "reader")
        self._before: set[str] = set()
        """Pods that ran when it was entered."""

    def __enter__(self) -> Self:
        """Read what was counted before, and begin."""
        self._read_whole(first=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Read for the last time."""
        self._stopping.set()
        self._thread.join()
        try:
            if error is None:
                self._read_whole()
        finally:
            self._readers.shutdown()
            self._client.close()

    def gained(self, counter: str) -> int:
        """Return how much was counted since it was entered: ``counted``, ``failed``, ``mismatched`` or ``exposed``."""
        return self._tallies[counter].gained

    def _run(self) -> None:
        while not self._stopping.wait(_EVERY_S):
            self._read()

    def _read_whole(self, *, first: bool = False) -> None:
        """Read until every pod that runs has answered.

        Raises:
            NotSeen: One has not.
        """
        until_s = time.monotonic() + _WHOLE_S
        while missing := self._read(first=first):
            if time.monotonic() > until_s:
                raise NotSeen(f"what {', '.join(missing)} counted could not be read")
            time.sleep(_EVERY_S)

    def _read(self, *, first: bool = False) -> list[str]:
        """Read every pod that runs; return what could not be read."""
        running, missing = self._running(), []
        if running is None:
            return ["the list of pods"]
        if first:
            self._before |= {pod["metadata"]["uid"] for pod in running}
        for pod, found in zip(running, self._readers.map(self._counters, running), strict=True):
            uid = pod["metadata"]["uid"]
            if found is None:
                missing.append(pod["metadata"]["name"])
                continue
            for name, value in found.items():
                self._tallies[name].take(uid, value, new=uid not in self._before)
        return missing

    def _counters(self, pod: Resource) -> Counters | None:
        """Return what a pod shows: nothing if it has ended, None if it may answer yet."""
        try:
            answer = self._client.get(f"{self._pods}/{pod['metadata']['name']}:8080/proxy/metrics")
            return counters_of(answer.raise_for_status().text)
        except httpx.HTTPStatusError:
            # One that ends was out of the gateway long before it stopped to answer.
            return {} if "deletionTimestamp" in pod["metadata"] else None
        except httpx.TransportError:
            return None

    def _running(self) -> list[Resource] | None:
        """Return the pods that run and may answer; None if they could not be had."""
        try:
            listed = self._client.get(self._pods, params=self._selector).raise_for_status().json()
        except _GONE:
            return None
        return [pod for pod in listed["items"] if pod["status"].get("phase") == "Running"]


def counters_of(text: str) -> Counters:
    """Return what a server has counted, from its metrics in Prometheus' text format."""
    found = {"counted": 0.0, "failed": 0.0, "mismatched": 0.0, "exposed": 0.0}
    for name, labels, value in _samples(text):
        if name == "fairlead_requests_total":
            found["counted" if labels["code"] in _SUCCESS else "failed"] += value
        elif name == "fairlead_exposures_total" and labels["outcome"] in found:
            found[labels["outcome"]] += value
    return found


def _samples(text: str) -> Iterator[tuple[str, Mapping[str, str], float]]:
    lines: Iterable[str] = (line for line in text.splitlines() if "fairlead_" in line)
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        yield from ((sample.name, sample.labels, sample.value) for sample in family.samples)
