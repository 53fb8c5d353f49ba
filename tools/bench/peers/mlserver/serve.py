"""Starts MLServer: ``serve.py HTTP_PORT GRPC_PORT METRICS_PORT FOLDER WORKERS``.

With 0 workers the model runs in the server's own process.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main(http_port: str, grpc_port: str, metrics_port: str, folder: str, workers: str) -> None:
    """Write the settings into ``folder`` and become the server."""
    settings = {
        "debug": False,
        "host": "127.0.0.1",
        "http_port": int(http_port),
        "grpc_port": int(grpc_port),
        "metrics_port": int(metrics_port),
        "parallel_workers": int(workers),
    }
    model = {"name": "gb", "implementation": "runtime.OnnxModel", "parameters": {"uri": os.environ["MODEL"]}}
    Path(folder, "settings.json").write_text(json.dumps(settings))
    Path(folder, "gb").mkdir()
    Path(folder, "gb/model-settings.json").write_text(json.dumps(model))
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    program = str(Path(sys.executable).with_name("mlserver"))
    os.execv(program, [program, "start", folder])  # noqa: S606 -- it becomes that program


if __name__ == "__main__":
    main(*sys.argv[1:])
