"""A whole deployment for tests: manifest, ``fairlead up`` around a real Envoy, and a quick client."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from support.servers import free_port

ECHO = Path(__file__).with_name("echo_server.py")
MODEL = "arrival-delay"


@dataclass
class ManifestFile:
    """A ModelDeployment in a folder, edited as its owner would."""

    path: Path
    document: dict[str, Any]

    @classmethod
    def make(cls, folder: Path, **spec: Any) -> ManifestFile:
        """Write a manifest: ``logistic`` is Control, ``boosted`` a Treatment; ``spec`` replaces whole fields."""
        (folder / "store").mkdir(exist_ok=True)
        document = {
            "apiVersion": "serving.fairlead.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": MODEL, "namespace": "flights"},
            "spec": {
                "featureStore": {"path": "store"},
                "variants": [
                    {"name": "logistic", "role": "Control", "model": model(folder, "logistic")},
                    {"name": "boosted", "role": "Treatment", "model": model(folder, "boosted")},
                ],
                "rollout": {"strategy": "Manual", "weights": {"boosted": 50}},
                "experiment": {"id": "e1"},
                **spec,
            },
        }
        made = cls(folder / "modeldeployment.yaml", document)
        made.write()
        return made

    @property
    def spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = self.document["spec"]
        return spec

    def write(self) -> None:
        """Write the document, in one step."""
        fresh = self.path.with_suffix(".new")
        fresh.write_text(yaml.safe_dump(self.document, sort_keys=False))
        fresh.replace(self.path)

    def weigh(self, **weights: float) -> None:
        self.spec["rollout"]["weights"] = weights
        self.write()


def model(folder: Path, name: str, content: bytes | None = None) -> dict[str, str]:
    """Make a model file and return its block in a manifest."""
    file = folder / f"{name}.onnx"
    file.write_bytes(content or name.encode())
    return {"uri": file.name, "digest": f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"}


class Up:
    """A running ``fairlead up``."""

    def __init__(self, manifest: ManifestFile, *arguments: str, server_command: str | None = None) -> None:
        self.manifest = manifest
        self.port = free_port()
        self.state = manifest.path.parent / ".fairlead"
        self.folder = self.state / MODEL
        self.log = manifest.path.parent / "up.log"
        command = server_command if server_command is not None else f"{sys.executable} {ECHO}"
        self.command = [
            *(sys.executable, "-m", "fairlead.cli.main", "up", "-f", str(manifest.path), "--port", str(self.port)),
            *("--state", str(self.state), *arguments, *(["--server-command", command] if command else [])),
        ]
        self.process: subprocess.Popen[bytes] | None = None
        self._started_ns = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Up:
        self._started_ns = time.time_ns()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, cwd=self.manifest.path.parent)
        return self

    def wait_ready(self, timeout_s: float = 30) -> Up:
        process = self.process
        assert process is not None
        wait_until(lambda: self.condition("Ready") == "True" or process.poll() is not None, timeout_s, self.explain)
        assert process.poll() is None, self.explain()
        return self

    def status(self) -> dict[str, Any]:
        file = self.folder / "status.json"
        if not file.exists() or file.stat().st_mtime_ns < self._started_ns:
            return {"conditions": [], "variants": []}
        status: dict[str, Any] = json.loads(file.read_bytes())["status"]
        return status

    def condition(self, kind: str, field: str = "status") -> str | None:
        return next((c[field] for c in self.status()["conditions"] if c["type"] == kind), None)

    def variant(self, name: str) -> dict[str, Any]:
        return next(v for v in self.status()["variants"] if v["name"] == name)

    def pids(self) -> dict[str, int]:
        """Return the processes that it runs: by revision, and ``envoy``."""
        record = json.loads((self.folder / "state.json").read_bytes())
        return {process["what"]: process["pid"] for process in record["processes"]}

    def pid(self, variant: str) -> int:
        return self.pids()[self.variant(variant)["revision"]]

    def http_port(self, variant: str) -> int:
        """Return where the variant's server listens, as the gateway knows it."""
        name = f"{self.variant(variant)['revision']}.http"
        clusters = json.loads((self.folder / "envoy/clusters.json").read_bytes())["resources"]
        [endpoints] = [c["load_assignment"]["endpoints"] for c in clusters if c["name"] == name]
        port: int = endpoints[0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["port_value"]
        return port

    def explain(self) -> str:
        return f"{self.log.read_text()}\n{json.dumps(self.status(), indent=1)}"

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(30)


@contextlib.contextmanager
def running(up: Up) -> Iterator[Up]:
    """Start ``up``, wait until it is ready, and stop it at the end."""
    try:
        yield up.start().wait_ready()
    finally:
        up.stop()


def wait_until(met: Any, timeout_s: float, explain: Any = None) -> float:
    """Wait until ``met()`` is true; return how long that took, seconds."""
    start = time.monotonic()
    while not met():
        assert time.monotonic() - start < timeout_s, explain() if explain else f"not met within {timeout_s} s"
        time.sleep(0.02)
    return time.monotonic() - start


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@dataclass(frozen=True)
class Answer:
    """What a client saw."""

    status: int
    variant: str
    body: bytes

    @property
    def echo(self) -> dict[str, Any]:
        first: dict[str, Any] = json.loads(self.body)["predictions"][0]
        return first


Headers = Mapping[str, str] | Sequence[tuple[str, str]]


async def post(
    port: int, requests: Iterable[Headers], *, connections: int = 8, body: bytes = b"{}", path: str | None = None
) -> list[Answer]:
    """Post one prediction per entry of ``requests`` (its headers), over keep-alive connections; answers in order."""
    entries = list(enumerate(requests))
    answers: list[Answer] = [Answer(0, "", b"")] * len(entries)
    target = path or f"/v1/models/{MODEL}:predict"

    async def work(share: list[tuple[int, Headers]]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for index, headers in share:
            pairs = headers.items() if isinstance(headers, Mapping) else headers
            lines = "".join(f"{name}: {value}\r\n" for name, value in pairs)
            head = f"POST {target} HTTP/1.1\r\nhost: m\r\ncontent-length: {len(body)}\r\n{lines}\r\n"
            writer.write(head.encode() + body)
            answers[index] = await _read_answer(reader)
        writer.close()

    await asyncio.gather(*(work(entries[start::connections]) for start in range(min(connections, len(entries)))))
    return answers


async def _read_answer(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Answer(int(head[0].split()[1]), headers.get("x-variant", ""), body)
