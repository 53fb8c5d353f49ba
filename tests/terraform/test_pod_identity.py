"""A model is fetched with the credentials that EKS Pod Identity gives a pod, and with no others."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from support.object_store import KEY_ID, SECRET, object_store

MODEL = b"a model" * 1000


@contextmanager
def pod_identity_agent(token: str) -> Iterator[str]:
    """Run what answers pods on a node: keys of the pod's role, for its token."""

    class Agent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            allowed = self.headers["Authorization"] == token and self.path == "/v1/credentials"
            keys = {
                "AccessKeyId": KEY_ID,
                "SecretAccessKey": SECRET,
                "Token": "t",
                "Expiration": "2099-01-01T00:00:00Z",
            }
            body = json.dumps(keys).encode() if allowed else b"{}"
            self.send_response(200 if allowed else 403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Agent)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/credentials"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_model_is_fetched_by_the_pods_role(tmp_path: Path) -> None:
    token = tmp_path / "eks-pod-identity-token"
    token.write_text("the pod's token")
    digest = hashlib.sha256(MODEL).hexdigest()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with object_store(**{"late.onnx": MODEL}) as store, pod_identity_agent("the pod's token") as agent:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "fairlead_server.fetch",
                f"fairlead+s3://models/late.onnx@sha256:{digest}",
                tmp_path,
            ],
            env=inherited
            | {
                "AWS_CONTAINER_CREDENTIALS_FULL_URI": agent,
                "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(token),
                "AWS_EC2_METADATA_DISABLED": "true",
                "AWS_ENDPOINT_URL": store.url,
            },
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert any(path.is_file() and path.read_bytes() == MODEL for path in tmp_path.rglob("*"))
