"""Starts Triton, as the pytriton wheel has it, with its Python backend: ``serve.py HTTP_PORT GRPC_PORT FOLDER``."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path

CONFIGURATION = """
name: "gb"
backend: "python"
max_batch_size: 0
input [{ name: "input" data_type: TYPE_FP32 dims: [ -1, 10 ] }]
output [
  { name: "label" data_type: TYPE_INT64 dims: [ -1 ] },
  { name: "probabilities" data_type: TYPE_FP32 dims: [ -1, 2 ] }
]
instance_group [{ kind: KIND_CPU count: 1 }]
"""


def main(http_port: str, grpc_port: str, folder: str) -> None:
    """Lay out the model repository and the backend in ``folder`` and become the server."""
    packages = Path(sysconfig.get_paths()["purelib"])
    triton = packages / "pytriton/tritonserver"
    backends, model = Path(folder, "backends"), Path(folder, "models/gb")
    shutil.copytree(triton / "backends", backends, dirs_exist_ok=True)
    stub = triton / f"python_backend_stubs/{sys.version_info.major}.{sys.version_info.minor}/triton_python_backend_stub"
    shutil.copy(stub, backends / "python")
    (backends / "python/triton_python_backend_stub").chmod(0o755)
    (model / "1").mkdir(parents=True, exist_ok=True)
    (model / "config.pbtxt").write_text(CONFIGURATION)
    shutil.copy(Path(__file__).with_name("model.py"), model / "1")
    libraries = [str(packages / "nvidia_pytriton.libs"), sysconfig.get_config_var("LIBDIR")]
    os.environ["LD_LIBRARY_PATH"] = ":".join(libraries)
    os.environ["PACKAGES"] = str(packages)
    program = triton / "bin/tritonserver"
    program.chmod(0o755)
    arguments = {
        "model-repository": model.parent,
        "backend-directory": backends,
        "http-address": "127.0.0.1",
        "http-port": http_port,
        "grpc-address": "127.0.0.1",
        "grpc-port": grpc_port,
        "allow-metrics": "false",
        "log-info": "false",
    }
    flags = [f"--{name}={value}" for name, value in arguments.items()]
    os.execv(str(program), [str(program), *flags])  # noqa: S606 -- it becomes that program


if __name__ == "__main__":
    main(*sys.argv[1:])
