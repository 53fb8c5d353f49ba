"""Everything that goes wrong in the server, as one tree.

ServerError
├── StartupError            the process ends with code 3 and the message
│   ├── ModelFileError      file missing, unreadable, not ONNX, no contract, other digest
│   └── ContractMismatch    the registry's feature service is not the contract's
└── RequestError            one request is refused or fails; carries its HTTP status and gRPC code
    ├── InvalidRequest      400 INVALID_ARGUMENT      the client's mistake, naming the field
    ├── UnknownModel        404 NOT_FOUND
    ├── FeatureRejected     422 FAILED_PRECONDITION   a feature's state is refused by policy
    ├── RequestTooLarge     413 RESOURCE_EXHAUSTED
    ├── NotReady            503 UNAVAILABLE           retryable
    └── InferenceFailed     500 INTERNAL              a fault of ours or of the model
"""

from __future__ import annotations

from typing import ClassVar


class ServerError(Exception):
    """Root of the tree."""


class StartupError(ServerError):
    """The server cannot serve this model; the message names the file and the fix."""


class ModelFileError(StartupError):
    """The model file is missing, unreadable, without contract, or not the expected one."""


class ContractMismatch(StartupError):
    """The contract does not fit the registry; the message names the feature."""


class RequestError(ServerError):
    """One request is refused or fails."""

    http_status: ClassVar[int] = 500
    grpc_code: ClassVar[str] = "INTERNAL"
    """Name in ``grpc.StatusCode``."""
    retryable: ClassVar[bool] = False

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


class FeatureRejected(RequestError):
    """A feature was found in a state that its policy rejects."""

    http_status = 422
    grpc_code = "FAILED_PRECONDITION"


class RequestTooLarge(RequestError):
    """The body is over the limit."""

    http_status = 413
    grpc_code = "RESOURCE_EXHAUSTED"


class NotReady(RequestError):
    """The model is not ready yet, or not any more."""

    http_status = 503
    grpc_code = "UNAVAILABLE"
    retryable = True


class InferenceFailed(RequestError):
    """The model could not be run on valid input."""
