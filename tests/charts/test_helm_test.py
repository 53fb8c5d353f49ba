"""What `helm test` runs, run: against servers that answer, and against ones that do not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from support.charts import one, rendered, scenarios

LEDGER = {"ledger": {"enabled": True}, "postgres": {"enabled": True}}


@contextmanager
def answering(status: int, seen: list[tuple[str, str | None]]) -> Iterator[str]:
    """Answer every request with ``status``; yield the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.path, self.headers.get("Authorization")))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(("ready", "ledger", "code"), [(200, 200, 0), (503, 200, 1), (200, 503, 1)])
def test_it_succeeds_when_all_answer(tmp_path: Path, ready: int, ledger: int, code: int) -> None:
    (tmp_path / "token").write_text("secret-token\n")
    container = one(rendered("fairlead", LEDGER), "Pod")["spec"]["containers"][0]
    script, collection, _, probe, _, kept = container["args"]
    assert container["command"] == ["python", "-c"]
    asked: list[tuple[str, str | None]] = []
    probed: list[tuple[str, str | None]] = []
    looked: list[tuple[str, str | None]] = []
    with (
        answering(200, asked) as api,
        answering(ready, probed) as operator,
        answering(ledger, looked) as keeper,
    ):
        urls = [
            collection.replace("https://kubernetes.default.svc", api),
            str(tmp_path),
            probe.replace("http://fairlead-operator.fairlead-system.svc:8080", operator),
        ]
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                script,
                *urls,
                "0",
                kept.replace("http://fairlead-ledger.fairlead-system.svc:8080", keeper),
            ],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            env={},
        )
    assert done.returncode == code, done.stdout + done.stderr
    path = "/apis/serving.fairlead.dev/v1alpha1/modeldeployments?limit=1"
    assert set(asked) == {(path, "Bearer secret-token")}
    assert set(probed) == {("/readyz", None)}, "the token is not the operator's to see"
    assert set(looked) == ({("/readyz", None)} if ready == 200 else set()), "nor the ledger's"
    assert "secret-token" not in done.stdout + done.stderr


def test_without_a_ledger_none_is_asked() -> None:
    assert len(one(rendered("fairlead"), "Pod")["spec"]["containers"][0]["args"]) == 5


def test_it_asks_only_for_what_the_operator_may_see() -> None:
    container = one(rendered("fairlead", scenarios("fairlead")["02-namespaced"]), "Pod")["spec"]["containers"][0]
    assert container["args"][1].endswith("/namespaces/flights/modeldeployments?limit=1")
