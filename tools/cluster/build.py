"""The programs of the test cluster, built once from pinned Go modules into a cache.

Each folder beside this file with a ``go.mod`` is a tool. Its build goes to
``${XDG_CACHE_HOME:-~/.cache}/fairlead/tools/<name>-<key>/`` with

- ``bin/``: the programs,
- ``manifests/``: the YAML that the module brings (custom resources, webhooks), so that a warm cache needs no modules.

The key is made of everything that decides the content: ``go.mod``, ``go.sum``, Go sources, flags, Go's version and the
machine's architecture. An entry appears whole (built beside, then renamed) or not at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from errors import ClusterError, Unavailable

HERE = Path(__file__).resolve().parent
FLAGS = ("-trimpath", "-buildvcs=false")
KUBERNETES_VERSION = "v1.35.4"
_LAYOUT = "1"
"""Changes with the layout of an entry."""
_LOG_LINES = 15


@dataclass(frozen=True, slots=True)
class Tool:
    """Programs of one Go module."""

    name: str
    """Folder of its ``go.mod``."""
    programs: Mapping[str, str]
    """Package by the program's name."""
    manifests: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Module and path in it (a file, or a folder) by the name in ``manifests/``."""
    ldflags: str = "-s -w"
    tags: str = ""


def _kubernetes_version(package: str = "k8s.io/component-base/version") -> str:
    major, minor, _ = KUBERNETES_VERSION.removeprefix("v").split(".")
    values = {
        "gitVersion": KUBERNETES_VERSION,
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
        "gitCommit": "unknown",
        "buildDate": "1970-01-01T00:00:00Z",
    }
    return " ".join(f"-X {package}.{name}={value}" for name, value in values.items())


_KUBERNETES_PROGRAMS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubectl",
)
_KSERVE = "github.com/kserve/kserve"
_HELM = "helm.sh/helm/v4/cmd/helm"
_HELM_VERSION = "helm.sh/helm/v4/internal/version.version=v4.3.1"

TOOLS = {
    tool.name: tool
    for tool in (
        Tool("etcd", {"etcd": "go.etcd.io/etcd/server/v3"}),
        Tool(
            "kubernetes",
            {name: f"k8s.io/kubernetes/cmd/{name}" for name in _KUBERNETES_PROGRAMS},
            ldflags=f"-s -w {_kubernetes_version()}",
        ),
        Tool(
            "kserve",
            {"kserve-manager": f"{_KSERVE}/cmd/manager"},
            manifests={
                "crd": (_KSERVE, "config/crd/full"),
                "webhooks.yaml": (_KSERVE, "config/webhook/manifests.yaml"),
            },
        ),
        Tool(
            "istio",
            {"pilot-discovery": "istio.io/istio/pilot/cmd/pilot-discovery"},
            manifests={"crd.yaml": ("istio.io/istio", "manifests/charts/base/files/crd-all.gen.yaml")},
            tags="vtprotobuf,disable_pgv",
        ),
        Tool("s3", {"versitygw": "github.com/versity/versitygw/cmd/versitygw"}),
        Tool("coredns", {"coredns": "."}),
        Tool("metrics-server", {"metrics-server": "sigs.k8s.io/metrics-server/cmd/metrics-server"}),
        Tool("helm", {"helm": _HELM}, ldflags=f"-s -w -X {_HELM_VERSION}"),
        Tool("pause", {"pause": "."}),
    )
}


@dataclass(frozen=True, slots=True)
class Built:
    """Where built tools are."""

    folders: Mapping[str, Path]
    """Cache entry by tool."""

    def program(self, name: str) -> Path:
        """Return the path of a program."""
        (tool,) = (t for t in TOOLS.values() if name in t.programs)
        return self.folders[tool.name] / "bin" / name

    def manifests(self, tool: str) -> Path:
        """Return the folder of a tool's manifests."""
        return self.folders[tool] / "manifests"


def build(cache: Path | None = None) -> Built:
    """Build what the cache lacks and return where everything is.

    Raises:
        Unavailable: There is no Go.
        ClusterError: A build failed.
    """
    cache = cache or default_cache()
    version = _go_version()
    folders = {tool.name: cache / f"{tool.name}-{_key(tool, version)}" for tool in TOOLS.values()}
    missing = [tool for tool in TOOLS.values() if not folders[tool.name].exists()]
    if missing:
        cache.mkdir(parents=True, exist_ok=True)
        print(f"tools: building {', '.join(tool.name for tool in missing)} with {version.split()[0]} into {cache}")
    for tool in missing:
        with _locked(cache / f".{tool.name}.lock"):
            if not folders[tool.name].exists():
                _build(tool, folders[tool.name])
    return Built(folders)


def default_cache() -> Path:
    """Return the cache's folder, the same for all checkouts of a user."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "fairlead/tools"


def _build(tool: Tool, entry: Path) -> None:
    print(f"tools: {tool.name} … (log: {_log(entry)})", flush=True)
    start = time.monotonic()
    staging = Path(tempfile.mkdtemp(prefix=f".{entry.name}-", dir=entry.parent))
    try:
        _compile(tool, staging / "bin", _log(entry))
        for name, (module, path) in tool.manifests.items():
            _copy(_module_folder(tool, module) / path, staging / "manifests" / name)
        staging.chmod(0o755)
        staging.rename(entry)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    size_mib = sum(f.stat().st_size for f in entry.rglob("*") if f.is_file()) >> 20
    print(f"tools: {tool.name} built in {time.monotonic() - start:.0f} s, {size_mib} MiB", flush=True)


def _compile(tool: Tool, target: Path, log: Path) -> None:
    target.mkdir()
    command = ["go", "build", *FLAGS, "-ldflags", tool.ldflags, *(["-tags", tool.tags] if tool.tags else [])]
    with log.open("wb") as out:
        for name, package in tool.programs.items():
            # Named one by one: several packages in one call would all be called after their folders.
            done = subprocess.run(
                [*command, "-o", str(target / name), package],
                cwd=HERE / tool.name,
                env=_environment(),
                stdout=out,
                stderr=subprocess.STDOUT,
                check=False,
            )
            if done.returncode:
                last = "\n".join(log.read_text("utf-8", "replace").splitlines()[-_LOG_LINES:])
                raise ClusterError(f"{tool.name}: go build {package} failed, see {log}:\n{last}")


def _module_folder(tool: Tool, module: str) -> Path:
    return Path(_go("list", "-m", "-f", "{{.Dir}}", module, folder=HERE / tool.name))


def _copy(source: Path, target: Path) -> None:
    """Copy a YAML file, or the YAML files of a folder's top and of those of its folders that are asked for."""
    if source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        return
    for file in sorted(source.rglob("*.yaml")):
        _copy(file, target / file.relative_to(source))


def _key(tool: Tool, version: str) -> str:
    folder = HERE / tool.name
    sources = sorted([folder / "go.mod", folder / "go.sum", *folder.glob("*.go")])
    digest = hashlib.sha256()
    recipe = [_LAYOUT, version, *FLAGS, tool.ldflags, tool.tags, dict(tool.programs), dict(tool.manifests)]
    digest.update(json.dumps(recipe, sort_keys=True).encode())
    for source in sources:
        digest.update(source.name.encode() + b"\0" + (source.read_bytes() if source.exists() else b"") + b"\0")
    return digest.hexdigest()[:16]


def _go_version() -> str:
    if shutil.which("go") is None:
        raise Unavailable("go is not on the PATH: install Go 1.26 or later; the cluster's programs are built with it")
    return _go("env", "GOVERSION", "GOOS", "GOARCH", folder=HERE).replace("\n", " ")


def _go(*arguments: str, folder: Path) -> str:
    done = subprocess.run(
        ["go", *arguments], cwd=folder, env=_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ClusterError(f"go {' '.join(arguments)} in {folder}: {done.stderr.strip()}")
    return done.stdout.strip()


def _environment() -> dict[str, str]:
    return os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}


def _log(entry: Path) -> Path:
    return entry.with_suffix(".log")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time build a tool."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
