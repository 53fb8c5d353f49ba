"""Triton's clients, REST and gRPC, against a running server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from support.models import expected_probability
from support.server_process import FULL_ROW, Material, ServerProcess

_CHECKS = Path(__file__).parents[1] / "support" / "triton_checks.py"


def test_tritons_clients_infer_and_read_metadata_health_and_index(server: ServerProcess, material: Material) -> None:
    expected = expected_probability(material.contract, {k: np.array([v]) for k, v in FULL_ROW.items()})[0]
    addresses = [server.url.removeprefix("http://"), server.grpc_address]
    done = subprocess.run(
        [sys.executable, str(_CHECKS), *addresses, str(expected), json.dumps(FULL_ROW)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
