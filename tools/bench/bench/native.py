"""Builds the bench's own programs in C++: the native server and the open-loop load.

ONNX Runtime's library is the one of the Python package that every server uses. Its C header is in no Python package;
it comes with a Go module, fetched by Go's own client and checked against a pinned hash, and is never committed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import onnxruntime as ort

from bench.environments import NotInstalled
from bench.paths import BENCH, CACHE

HEADER_MODULE = "github.com/yalue/onnxruntime_go@v1.27.0"
HEADER_SUM = "h1:c1YSgDNtpf0WGtxj3YeRIb8VC5LmM1J+Ve3uHdteC1U="
_FLAGS = ("-O3", "-march=native", "-std=c++17")


def native_server() -> Path:
    """Return the native server; build it first if it, its sources or ONNX Runtime are new.

    Raises:
        NotInstalled: A compiler, Go or the header is missing.
    """
    (library,) = Path(ort.__file__).parent.glob("capi/libonnxruntime.so.1.*")
    folder = _folder(library.name)
    if not (folder / "native").exists():
        folder.mkdir(parents=True, exist_ok=True)
        linked = folder / "libonnxruntime.so.1"  # what the library calls itself
        linked.unlink(missing_ok=True)
        linked.symlink_to(library)
        _compile("server.cpp", folder / "native", f"-I{_headers()}", str(linked), f"-Wl,-rpath,{folder}")
    return folder / "native"


def open_load() -> Path:
    """Return the open-loop load; build it first if it or its source is new.

    Raises:
        NotInstalled: There is no compiler.
    """
    folder = _folder("")
    if not (folder / "load").exists():
        folder.mkdir(parents=True, exist_ok=True)
        _compile("load.cpp", folder / "load")
    return folder / "load"


def _folder(library: str) -> Path:
    sources = sorted((BENCH / "native").glob("*.?pp"))
    key = hashlib.sha256(library.encode() + b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    return CACHE / f"native-{key}"


def _compile(source: str, program: Path, *arguments: str) -> None:
    if shutil.which("g++") is None:
        raise NotInstalled("there is no g++ (Debian: apt-get install g++)")
    made = program.with_suffix(".new")
    command = ["g++", *_FLAGS, str(BENCH / "native" / source), *arguments, "-o", str(made)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode:
        raise NotInstalled(f"g++ {source}: {built.stderr.strip().splitlines()[0]}")
    made.rename(program)


def _headers() -> Path:
    if shutil.which("go") is None:
        raise NotInstalled("ONNX Runtime's C header is fetched as a Go module, and there is no go")
    command = ["go", "mod", "download", "-json", HEADER_MODULE]
    fetched = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    if fetched.returncode:
        raise NotInstalled(f"go mod download {HEADER_MODULE}: {fetched.stderr.strip()[:160]}")
    told = json.loads(fetched.stdout)
    if told["Sum"] != HEADER_SUM:
        raise NotInstalled(f"{HEADER_MODULE} is another than was pinned: {told['Sum']}")
    return Path(told["Dir"])
