"""The same methods behind grpcio's own server, for whoever wants that: ``--grpc-engine grpcio``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from fairlead.feedback.token import PREDICTION_HEADER
from fairlead.route import EXPERIMENT_HEADER
from fairlead_server.errors import PortTaken, RequestError
from fairlead_server.exposure.experiment import joined
from fairlead_server.exposure.routes import Headers
from fairlead_server.protocol.grpc.health import HEALTH, HealthMethods
from fairlead_server.protocol.grpc.inference import PROTOCOL
from fairlead_server.protocol.grpc.methods import SERVICE, InferenceMethods, Method, SlowMethod
from fairlead_server.protocol.service import Service

_Handler = Callable[[bytes, Any], Awaitable[bytes]]


def make_server(service: Service, host: str, port: int, max_message_bytes: int) -> tuple[grpc.aio.Server, int]:
    """Make the server, bound and not yet started.

    Args:
        service: What requests are answered from.
        host: Address to listen on.
        port: Port to listen on; 0 lets the system choose.
        max_message_bytes: Largest request.

    Returns:
        The server and its port.

    Raises:
        PortTaken: Another program listens there.
    """
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", -1),
            # Two servers on one port would share its connections without either noticing.
            ("grpc.so_reuseport", 0),
        ]
    )
    handlers = _Handlers(service)
    inference = {name: _unary(handler) for name, handler in handlers.of_inference().items()}
    health = {"Check": _unary(handlers.quick(HealthMethods(service).check))}
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(SERVICE, inference),
            grpc.method_handlers_generic_handler(HEALTH, health),
        )
    )
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError:
        bound = 0
    if bound == 0:
        raise PortTaken(f"cannot listen on {address}; choose another with --grpc-port")
    return server, bound


class GrpcioServer:
    """grpcio's own server as one of the process' ways in."""

    def __init__(self, service: Service, host: str, port: int, max_message_bytes: int) -> None:
        """Make the server, bound and not yet started; see :func:`make_server`.

        Raises:
            PortTaken: Another program listens there.
        """
        self._server, self.port = make_server(service, host, port, max_message_bytes)

    async def start(self) -> None:
        """Answer from now on."""
        await self._server.start()

    def retire(self) -> None:
        """Wait for :meth:`drain`: grpcio tells peers to go only when it takes no more."""

    async def drain(self, deadline_s: float) -> None:
        """Take no more calls, answer those in flight, and cut off what is not answered in time."""
        await self._server.stop(grace=deadline_s)


class _Reply:
    """Where an inference's answer goes: a future that grpcio's handler awaits."""

    def __init__(self) -> None:
        self.done: asyncio.Future[tuple[bytes, str | None]] = asyncio.get_running_loop().create_future()

    @property
    def over(self) -> str | None:
        """See ``Reply``: grpcio cancels the handler, and the future with it."""
        return "CANCELLED" if self.done.cancelled() else None

    def gone(self) -> bool:
        """See ``Reply``."""
        return self.done.cancelled()

    def answer(self, message: bytes, token: str | None) -> bool:
        """See ``Reply``."""
        if self.done.done():
            return False
        self.done.set_result((message, token))
        return True

    def fail(self, error: RequestError) -> None:
        """See ``Reply``."""
        if not self.done.done():
            self.done.set_exception(error)


class _Handlers:
    """Methods as grpcio calls them."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._methods = InferenceMethods(service)

    def of_inference(self) -> dict[str, _Handler]:
        """Return the handlers of ``SERVICE`` by method."""
        quick = {name: self.quick(method) for name, method in self._methods.quick.items()}
        slow = {name: self._slow(method) for name, method in self._methods.slow.items()}
        return {**quick, **slow, "ModelInfer": self._infer}

    def quick(self, method: Method) -> _Handler:
        """Return the handler of a method that answers at once."""

        async def answer(raw: bytes) -> bytes:
            return method(raw)

        return self._slow(answer)

    def _slow(self, method: SlowMethod) -> _Handler:
        async def answer(raw: bytes, context: Any) -> bytes:
            try:
                return await method(raw)
            except Exception as error:  # noqa: BLE001 -- the top of a request: a client never sees a traceback
                return await _abort(context, self._service.failure(error, PROTOCOL))

        return answer

    async def _infer(self, raw: bytes, context: Any) -> bytes:
        reply = _Reply()
        left_s = context.time_remaining()
        deadline_s = None if left_s is None else asyncio.get_running_loop().time() + left_s
        self._methods.infer(raw, _metadata(context), deadline_s, reply)
        try:
            encoded, token = await reply.done
        except RequestError as error:
            return await _abort(context, error)
        if token is not None:
            named = ((PREDICTION_HEADER, token),)
            context.set_trailing_metadata(named)
            await context.send_initial_metadata(named)
        return encoded


def _unary(handler: _Handler) -> Any:
    return grpc.unary_unary_rpc_method_handler(handler)


async def _abort(context: Any, failure: RequestError) -> bytes:
    await context.abort(getattr(grpc.StatusCode, failure.grpc_code), str(failure))
    raise failure  # abort() has raised already


def _metadata(context: Any) -> Headers | None:
    """Return the metadata, but only where an experiment is named: most requests bring none."""
    found = context.invocation_metadata() or ()
    if not any(name == EXPERIMENT_HEADER for name, _ in found):
        return None
    # grpc has decoded the bytes as UTF-8; the law is over bytes.
    return joined((name, value.encode().decode("latin-1")) for name, value in found if isinstance(value, str))
