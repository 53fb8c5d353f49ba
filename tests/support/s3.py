"""A real S3-compatible server (versitygw over a folder), for pods and tests to reach at the node's address."""

from __future__ import annotations

import secrets
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

from fairlead.contract import sha256
from support.servers import free_port

REGION = "us-east-1"
_START_S = 20.0
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running server with one bucket."""

    endpoint: str
    """URL, by the node's address."""
    bucket: str
    key_id: str
    secret: str

    def put(self, key: str, content: bytes) -> str:
        """Store an object and return the address that ``fairlead fetch`` takes, with its digest."""
        with self.files().open_output_stream(f"{self.bucket}/{key}") as stream:
            stream.write(content)
        return f"fairlead+s3://{self.bucket}/{key}@{sha256(content)}"

    def files(self) -> fs.S3FileSystem:
        """Return a client with its keys."""
        return fs.S3FileSystem(
            access_key=self.key_id,
            secret_key=self.secret,
            region=REGION,
            endpoint_override=self.endpoint,
            allow_bucket_creation=True,
        )

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables by which ``fairlead fetch`` reaches it."""
        return {
            "AWS_ACCESS_KEY_ID": self.key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": REGION,
        }


@contextmanager
def s3_server(program: Path, folder: Path, host: str) -> Iterator[S3Server]:
    """Run a server over ``folder`` with keys of its own, and end it afterwards."""
    port = free_port(host)
    key_id, secret = f"key{secrets.token_hex(6)}", secrets.token_urlsafe(24)
    (folder / "objects").mkdir()
    command = [
        str(program),
        "--port",
        f"{host}:{port}",
        "--region",
        REGION,
        "--quiet",
        "posix",
        str(folder / "objects"),
    ]
    keys = {"ROOT_ACCESS_KEY": key_id, "ROOT_SECRET_KEY": secret}
    with (folder / "s3.log").open("wb") as log:
        process = subprocess.Popen(command, env=keys, stdout=log, stderr=log, cwd=folder)
    try:
        _wait_open(process, host, port, folder / "s3.log")
        server = S3Server(f"http://{host}:{port}", "models", key_id, secret)
        server.files().create_dir(server.bucket)
        yield server
    finally:
        process.terminate()
        process.wait()


def _wait_open(process: subprocess.Popen[bytes], host: str, port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        with closing(socket.socket()) as probe:
            if probe.connect_ex((host, port)) == 0:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"versitygw does not listen on {host}:{port}: {log.read_text()}")
        time.sleep(_POLL_S)
