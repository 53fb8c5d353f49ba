"""Everything that goes wrong in the server, as one tree.

ServerError
├── StartupError            the process ends with the class's exit code and the message
│   ├── ModelFileError      3    file missing, unreadable, not ONNX, no contract, other digest
│   ├── ContractMismatch    3    the registry's feature service is not the contract's
│   └── PortTaken           4    another program listens there
├── FetchError              a model file cannot be fetched; the process ends with the class's exit code
│   ├── FetchRefused        3    wrong address, digest, key or permission: trying again does not help
│   └── FetchInterrupted    1    retryable; no answer, a failing server, a broken connection
└── RequestError            one request is refused or fails; carries its HTTP status and gRPC code
    ├── InvalidRequest      400 INVALID_ARGUMENT      the client's mistake, naming the field
    ├── UnknownModel        404 NOT_FOUND
    ├── UnknownRoute        404 UNIMPLEMENTED
    ├── MethodNotAllowed    405 UNIMPLEMENTED         lists the methods that are
    ├── BodyTimeout         408 DEADLINE_EXCEEDED     the body did not arrive in time
    ├── DeadlinePassed      408 DEADLINE_EXCEEDED     the client's deadline passed before the model could be run
    ├── UnsupportedEncoding 415 UNIMPLEMENTED         a compressed body
    ├── FeatureRejected     422 FAILED_PRECONDITION   a feature's state is refused by policy
    ├── RequestTooLarge     413 RESOURCE_EXHAUSTED
    ├── LoadRefused         422 FAILED_PRECONDITION   a model that somebody wants loaded cannot be served
    ├── Overloaded          429 RESOURCE_EXHAUSTED    retryable; the queue would miss the deadline
    ├── ClientLeft          499 CANCELLED             nobody is there to be answered
    ├── NotReady            503 UNAVAILABLE           retryable
    ├── StoreUnavailable    503 UNAVAILABLE           retryable; a feature without substitute while the store fails
    └── InferenceFailed     500 INTERNAL              a fault of ours or of the model
"""

from __future__ import annotations

from typing import ClassVar

from fairlead.feedback.messages import Failure


class ServerError(Exception):
    """Root of the tree."""


class StartupError(ServerError):
    """The server cannot serve this model; the message names the file and the fix."""

    exit_code: ClassVar[int] = 3


class ModelFileError(StartupError):
    """The model file is missing, unreadable, without contract, or not the expected one."""


class ContractMismatch(StartupError):
    """The contract does not fit the registry; the message names the feature."""

    def __init__(self, message: str, differences: tuple[str, ...] = (), registered: str | None = None) -> None:
        """Make the error.

        Args:
            message: The first difference, and what to do.
            differences: All of them, if they were looked for.
            registered: Fingerprint of the registered service, if there is one.
        """
        super().__init__(message)
        self.differences = differences
        self.registered = registered


class PortTaken(StartupError):
    """A port cannot be listened on; the message names the address and the flag."""

    exit_code = 4


class FetchError(ServerError):
    """A model file cannot be fetched; the message is one line without secrets."""

    exit_code: ClassVar[int] = 3
    retryable: ClassVar[bool] = False


class FetchRefused(FetchError):
    """What was asked for is wrong, or not allowed: somebody has to change something."""


class FetchInterrupted(FetchError):
    """It may work another time."""

    exit_code = 1
    retryable = True


class RequestError(ServerError):
    """One request is refused or fails."""

    http_status: ClassVar[int] = 500
    grpc_code: ClassVar[str] = "INTERNAL"
    """Name in ``grpc.StatusCode``."""
    retryable: ClassVar[bool] = False
    failure: ClassVar[Failure | None] = None
    """Who failed; None if it is no error of ours."""

    def __init__(self, message: str, field: str | None = None) -> None:
        """Make the error.

        Args:
            message: What is wrong and what to do, for the client.
            field: The request's field that is at fault, if one is.
        """
        super().__init__(message)
        self.field = field


class InvalidRequest(RequestError):
    """The request cannot be answered as it is."""

    http_status = 400
    grpc_code = "INVALID_ARGUMENT"


class UnknownModel(RequestError):
    """No model of that name or version is served here."""

    http_status = 404
    grpc_code = "NOT_FOUND"


class UnknownRoute(RequestError):
    """Nothing is served at that path."""

    http_status = 404
    grpc_code = "UNIMPLEMENTED"


class MethodNotAllowed(RequestError):
    """The path is served, by other methods."""

    http_status = 405
    grpc_code = "UNIMPLEMENTED"

    def __init__(self, allowed: str) -> None:
        """Make the error; ``allowed`` lists methods, separated by commas."""
        super().__init__(f"use {allowed} here")
        self.allowed = allowed


class BodyTimeout(RequestError):
    """The body did not arrive in time."""

    http_status = 408
    grpc_code = "DEADLINE_EXCEEDED"


class UnsupportedEncoding(RequestError):
    """The body is compressed in a way that is not read here."""

    http_status = 415
    grpc_code = "UNIMPLEMENTED"


class FeatureRejected(RequestError):
    """A feature was found in a state that its policy rejects."""

    http_status = 422
    grpc_code = "FAILED_PRECONDITION"


class RequestTooLarge(RequestError):
    """The body is over the limit."""

    http_status = 413
    grpc_code = "RESOURCE_EXHAUSTED"


class LoadRefused(RequestError):
    """A model cannot be loaded; what was served before still is. The message has the reason."""

    http_status = 422
    grpc_code = "FAILED_PRECONDITION"

    def __init__(self, name: str, reason: str) -> None:
        """Make the error; ``reason`` says why the model ``name`` is not served."""
        super().__init__(f"model {name!r} cannot be loaded: {reason}", field="model_name")
        self.reason = reason


class Overloaded(RequestError):
    """The model's queue would miss the request's deadline, or is full."""

    http_status = 429
    grpc_code = "RESOURCE_EXHAUSTED"
    retryable = True
    failure = Failure.MODEL

    def __init__(self, message: str, retry_after_s: float) -> None:
        """Make the error; in ``retry_after_s`` seconds the queue is expected to have room."""
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ClientLeft(RequestError):
    """The client went away before the model was run; nobody is there to be answered."""

    http_status = 499
    grpc_code = "CANCELLED"


class NotReady(RequestError):
    """The model is not ready yet, or not any more."""

    http_status = 503
    grpc_code = "UNAVAILABLE"
    retryable = True
    failure = Failure.NOT_READY


class StoreUnavailable(RequestError):
    """The online store does not answer, and a feature's policy accepts no substitute."""

    http_status = 503
    grpc_code = "UNAVAILABLE"
    retryable = True
    failure = Failure.FEATURE_STORE


class DeadlinePassed(RequestError):
    """The client's deadline passed while the request waited for the model.

    The client set it, so no 5xx; in an experiment it is an error of the arm all the same, which was not fast enough.
    """

    http_status = 408
    grpc_code = "DEADLINE_EXCEEDED"
    failure = Failure.MODEL


class InferenceFailed(RequestError):
    """The model could not be run on valid input."""

    failure = Failure.MODEL
