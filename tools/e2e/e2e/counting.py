"""What the model servers count, read from their metrics through the API server while they live."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
from prometheus_client.parser import text_string_to_metric_families

from e2e.accounts import Tally
from fairlead_operator.platforms.kubernetes.kinds import DEPLOYMENT_LABEL, POD
from support.cluster_api import Resource
from support.kubeconfig import credentials_of

_EVERY_S = 0.4
_TIMEOUT_S = 2.0
"""Short: whoever does not answer keeps the others waiting."""
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
        self._ended: set[str] = set()

    def __enter__(self) -> Self:
        """Read what was counted before, and begin."""
        self._read(first=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Read for the last time."""
        self._stopping.set()
        self._thread.join()
        self._read()
        self._client.close()

    def gained(self, counter: str) -> int:
        """Return how much was counted since it was entered: ``counted``, ``failed``, ``mismatched`` or ``exposed``."""
        return self._tallies[counter].gained

    def _run(self) -> None:
        while not self._stopping.wait(_EVERY_S):
            self._read()

    def _read(self, *, first: bool = False) -> None:
        for pod in self._running():
            uid, ending = pod["metadata"]["uid"], "deletionTimestamp" in pod["metadata"]
            try:
                answer = self._client.get(f"{self._pods}/{pod['metadata']['name']}:8080/proxy/metrics")
                found = counters_of(answer.raise_for_status().text)
            except _GONE:
                if ending:  # it was out of the gateway long before it stopped to answer
                    self._ended.add(uid)
                continue
            for name, value in found.items():
                self._tallies[name].take(uid, value, new=not first)

    def _running(self) -> list[Resource]:
        try:
            listed = self._client.get(self._pods, params=self._selector).raise_for_status().json()
        except _GONE:
            return []
        found: list[Resource] = [pod for pod in listed["items"] if pod["status"].get("podIP")]
        return [pod for pod in found if pod["metadata"]["uid"] not in self._ended]


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
