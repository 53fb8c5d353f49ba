"""Who is measured, and how each is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from bench.cases import Protocol
from bench.model import NAME

PATHS: Mapping[Protocol, str] = MappingProxyType(
    {
        "v2-json": f"/v2/models/{NAME}/infer",
        "v2-binary": f"/v2/models/{NAME}/infer",
        "v1-json": f"/v1/models/{NAME}:predict",
        "v2-json-contract": "/v2/models/arrival-delay/infer",
        "hydrated": "/v1/models/arrival-delay:predict",
    }
)
REVISION, VARIANT = "bench-boosted-6f1c9d00", "boosted"
_OURS = (
    *("{python}", "-m", "fairlead_server", "--model", "{model}", "--model-name", NAME),
    *("--variant", VARIANT, "--revision", REVISION, "--serving-dir", "{serving}"),
    *("--http-port", "{http}", "--grpc-port", "{grpc}"),
)
_OURS_CONTRACT = (
    *("{python}", "-m", "fairlead_server", "--model", "{contract}", "--model-name", "arrival-delay"),
    *("--feature-store", "{store}", "--variant", VARIANT, "--revision", REVISION, "--serving-dir", "{serving}"),
    # Feast does not enforce ttl online, so neither do we here: both use what is stored, however old.
    *("--hydration", '{{"on_stale": "Use", "deadline_s": 1}}', "--http-port", "{http}", "--grpc-port", "{grpc}"),
)
_KSERVE = ("{python}", "{peers}/kserve/serve.py", "{http}", "{grpc}")
_KSERVE_CONTRACT = ("{python}", "{peers}/kserve/contract.py", "{contract}", "{store}", "{http}")
_MLSERVER = ("{python}", "{peers}/mlserver/serve.py", "{http}", "{grpc}", "{metrics}", "{folder}")
_V2: tuple[Protocol, ...] = ("v2-json", "v2-binary")


@dataclass(frozen=True, slots=True)
class System:
    """One server as it is started, and what it is asked."""

    name: str
    what: str
    """What it is, for readers of the table."""
    command: tuple[str, ...]
    protocols: tuple[Protocol, ...]
    peer: str | None = None
    """Whose environment it runs in; None for the project's own."""
    environment: Mapping[str, str] = field(default_factory=dict)
    paths: Mapping[Protocol, str] = field(default_factory=lambda: PATHS)
    experiment: bool = False
    """Whether its requests bring a signed experiment header and a unit, and it is told of a ledger."""
    answers: bool = True
    """Whether it runs the model."""
    program: str | None = None
    """Program that must be on the PATH."""

    @property
    def label(self) -> str:
        """Name of its files; two systems may share a name and serve different models."""
        return self.name if "contract" not in "".join(self.command) else f"{self.name}-contract"


SYSTEMS = (
    System(
        "nginx-static",
        "nginx with one worker, a fixed answer, no model: what HTTP itself costs",
        ("{nginx}", "-e", "stderr", "-c", "{folder}/nginx.conf"),
        ("v2-json", "v1-json"),
        answers=False,
        program="nginx",
    ),
    System(
        "native",
        "C++ of our own: epoll, one thread, the same ONNX Runtime, nothing else a server does: the ceiling",
        ("{native}", "{model}", "{http}", "{grpc}"),
        (*_V2, "v1-json", "grpc"),
    ),
    System(
        "fairlead",
        "this model server; metrics, prediction token and exposure on, another unit on every request",
        _OURS,
        (*_V2, "v1-json", "grpc"),
        experiment=True,
    ),
    System(
        "fairlead-metrics",
        "the same server, requests of no experiment",
        _OURS,
        (*_V2, "v1-json", "grpc"),
    ),
    System(
        "fairlead-python",
        "fairlead with the pure-Python HTTP/2 engine",
        (*_OURS, "--grpc-engine", "python"),
        ("grpc",),
        experiment=True,
    ),
    System("fairlead-grpcio", "fairlead with grpcio", (*_OURS, "--grpc-engine", "grpcio"), ("grpc",), experiment=True),
    System(
        "kserve-default",
        "the KServe SDK as shipped, ONNX Runtime in a Model",
        _KSERVE,
        (*_V2, "v1-json", "grpc"),
        peer="kserve",
    ),
    System(
        "kserve-quiet",
        "the same, its access log, latency lines and trace turned off",
        (*_KSERVE, "quiet"),
        (*_V2, "v1-json", "grpc"),
        peer="kserve",
    ),
    System(
        "mlserver",
        "MLServer, the model in the server's own process",
        (*_MLSERVER, "0"),
        ("v2-json", "grpc"),
        peer="mlserver",
    ),
    System(
        "mlserver-default",
        "MLServer as shipped: one worker process",
        (*_MLSERVER, "1"),
        ("v2-json", "grpc"),
        peer="mlserver",
    ),
    System(
        "triton-python",
        "Triton with its Python backend, from the nvidia-pytriton wheel",
        ("{python}", "{peers}/triton/serve.py", "{http}", "{grpc}", "{folder}"),
        (*_V2, "grpc"),
        peer="triton",
    ),
    System(
        "fastapi-naive",
        "FastAPI, pydantic in and out, a plain function",
        ("{python}", "{peers}/fastapi/serve.py", "{http}"),
        ("v1-json",),
        peer="fastapi",
        paths={"v1-json": "/naive"},
    ),
    System(
        "fastapi-async",
        "FastAPI written with care: async, orjson both ways",
        ("{python}", "{peers}/fastapi/serve.py", "{http}"),
        ("v1-json",),
        peer="fastapi",
        paths={"v1-json": "/async"},
    ),
    System(
        "bentoml",
        "a BentoML service",
        ("{python}", "-m", "bentoml", "serve", "service:Gb", "--working-dir", "{peers}/bentoml"),
        ("v1-json",),
        peer="bentoml",
        environment={"BENTOML_DO_NOT_TRACK": "True"},
        paths={"v1-json": "/predict"},
    ),
    System(
        "grpcio-sync",
        "grpcio's sync server with raw bytes and four threads, nothing else: its floor",
        ("{python}", "{peers}/grpcio/serve.py", "{grpc}"),
        ("grpc",),
        peer="kserve",
    ),
    System(
        "fairlead",
        "this model server with a contract model and a feature store; the same switched on",
        _OURS_CONTRACT,
        ("v2-json-contract", "hydrated"),
        experiment=True,
    ),
    System(
        "kserve-default",
        "the KServe SDK as shipped, with the contract's tensors, or with Feast's own call",
        _KSERVE_CONTRACT,
        ("v2-json-contract", "hydrated"),
    ),
    System(
        "kserve-quiet",
        "the same, quiet",
        (*_KSERVE_CONTRACT, "quiet"),
        ("v2-json-contract", "hydrated"),
    ),
)
