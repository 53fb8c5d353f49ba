"""A tiny model server for tests of the control plane: the command line of fairlead_server, answers that say who it is.

Every answer to a prediction is JSON: the variant and revision this process was started for, and what the gateway
sent along, and whether it was ready: it is from ``--ready-after`` seconds after its start, and answers before that
too. ``{"sleep_s": 0.1}`` in a REST body delays the answer, ``{"die": true}`` kills the process, ``{"drop": true}`` ends
the connection without an answer. Model files starting with ``broken`` are refused, those starting with ``crash`` end
the process.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import grpc
from aiohttp import web


class Echo:
    def __init__(self, settings: argparse.Namespace) -> None:
        self._settings = settings
        self._served = 0
        self._ready_at: float = time.monotonic() + settings.ready_after

    @property
    def is_ready(self) -> bool:
        return time.monotonic() >= self._ready_at

    def answer(self, headers: dict[str, str]) -> dict[str, Any]:
        self._served += 1
        sent = {name: value for name, value in headers.items() if name.startswith("x-")}
        who = {"variant": self._settings.variant, "revision": self._settings.revision}
        return {**who, "ready": self.is_ready, "headers": sent}

    async def predict(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read() or b"{}")
        if body.get("die"):
            os.kill(os.getpid(), signal.SIGKILL)
        if body.get("drop") and request.transport is not None:
            request.transport.abort()
        answer = self.answer({name.lower(): value for name, value in request.headers.items()})
        await asyncio.sleep(body.get("sleep_s", 0))
        return web.json_response({"predictions": [answer for _ in body.get("instances", [1])]})

    async def ready(self, _: web.Request) -> web.Response:
        return web.json_response({"ready": self.is_ready}, status=200 if self.is_ready else 503)

    async def metadata(self, _: web.Request) -> web.Response:
        told = Path(self._settings.model).with_suffix(".told.json")  # what a test has the model say of itself
        more = json.loads(told.read_text()) if told.exists() else {}
        parameters = {"contract_digest": "sha256:c"}
        return web.json_response({"name": self._settings.model_name, "parameters": parameters, **more})

    async def served(self, _: web.Request) -> web.Response:
        return web.json_response(self._served)

    async def infer(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return json.dumps(self.answer(dict(context.invocation_metadata()))).encode() + request


class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, echo: Echo) -> None:
        self._method = grpc.unary_unary_rpc_method_handler(echo.infer)

    def service(self, _: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return self._method


async def serve(settings: argparse.Namespace) -> None:
    echo = Echo(settings)
    app = web.Application(client_max_size=2**25)
    model = f"/v2/models/{settings.model_name}"
    app.router.add_post(f"/v1/models/{settings.model_name}:predict", echo.predict)
    app.router.add_post(f"{model}/infer", echo.predict)
    app.router.add_get(f"{model}/ready", echo.ready)
    app.router.add_get(model, echo.metadata)
    app.router.add_get("/metrics", echo.served)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=5)
    await runner.setup()
    await web.TCPSite(runner, settings.host, settings.http_port).start()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Handler(echo),))
    server.add_insecure_port(f"{settings.host}:{settings.grpc_port}")
    await server.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await server.stop(5)
    await runner.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("model", "feature-store", "model-name", "model-digest", "variant", "revision", "host", "hydration"):
        parser.add_argument(f"--{name}")
    for name in ("serving-dir", "spool-dir", "clock"):
        parser.add_argument(f"--{name}")
    for name in ("http-port", "grpc-port"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--ready-after", type=float, default=0.0)
    settings = parser.parse_args()
    content = Path(settings.model).read_bytes()
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    if digest != settings.model_digest:
        sys.stderr.write(f"{settings.model}: digest is {digest}, not {settings.model_digest}\n")
        sys.exit(3)
    if content.startswith(b"crash"):
        sys.exit(70)
    asyncio.run(serve(settings))


if __name__ == "__main__":
    main()
