"""ONNX Runtime: opens a model file, checks it against digest and contract, and runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairlead.contract import Contract, ContractError, DType, sha256
from fairlead.onnx_runtime import onnxruntime
from fairlead_server.errors import InferenceFailed, ModelFileError
from fairlead_server.hydrate.plan import ARRAY_TYPES
from fairlead_server.hydrate.thread import WorkerThread

Array = NDArray[np.generic]

_ELEMENT_TYPES: Mapping[DType, str] = {
    "float32": "tensor(float)",
    "float64": "tensor(double)",
    "int64": "tensor(int64)",
    "int32": "tensor(int32)",
    "bool": "tensor(bool)",
    "string": "tensor(string)",
}
_ROWS_ON_LOOP = 64
"""Up to so many rows the model runs on the event loop: a hop to a thread costs more than they take."""
_MAX_RANK = 2
_WARM_UP_RUNS = 3


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model as read from its file."""

    content: bytes
    digest: str
    """``sha256:…`` of the file."""


def read_model(path: Path, digest: str | None) -> ModelFile:
    """Read a model file.

    Args:
        path: The file.
        digest: What it must be, ``sha256:…``; None takes any.

    Raises:
        ModelFileError: It cannot be read, or is another.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror or error}; check --model") from error
    found = sha256(content)
    if digest is not None and digest != found:
        raise ModelFileError(f"{path}: digest is {found}, expected {digest}; name the right file or its digest")
    return ModelFile(content, found)


class Session:
    """One loaded model: arrays by input name in, arrays by output name out."""

    def __init__(self, run: Callable[..., Any], contract: Contract, thread: WorkerThread) -> None:
        """Wrap ONNX Runtime's ``run``; see :func:`open_session`."""
        self._run = run
        self._outputs = [output.name for output in contract.outputs]
        self._inputs = [(feature.input, ARRAY_TYPES[feature.dtype]) for feature in contract.features]
        self._thread = thread

    async def run(self, columns: Mapping[str, Array], rows: int) -> dict[str, Array]:
        """Run the model.

        Args:
            columns: Every input of the graph by name, shape [rows], of the contract's types.
            rows: Number of rows.

        Returns:
            The contract's outputs by name, shape [rows].

        Raises:
            InferenceFailed: ONNX Runtime failed, or an output has another number of rows.
        """
        if rows <= _ROWS_ON_LOOP:
            return self.run_now(columns, rows)
        return await self._thread.submit(lambda: self.run_now(columns, rows))

    def run_now(self, columns: Mapping[str, Array], rows: int) -> dict[str, Array]:
        """Run the model in the thread of whoever calls; see :meth:`run`."""
        feed = {name: columns[name].reshape(rows, 1) for name, _ in self._inputs}
        try:
            found = self._run(self._outputs, feed)
        except Exception as error:
            raise InferenceFailed(f"the model failed with {type(error).__name__}") from error
        return {name: _rows_of(name, output, rows) for name, output in zip(self._outputs, found, strict=True)}

    async def warm_up(self) -> None:
        """Run the model a few times, so that no request pays for its first run."""
        for _ in range(_WARM_UP_RUNS):
            await self.run(
                {name: np.full(1, "" if dtype == np.object_ else 0, dtype) for name, dtype in self._inputs}, 1
            )

    def close(self) -> None:
        """Let the thread for large batches end."""
        self._thread.close()


def open_session(model: ModelFile, source: str, thread: WorkerThread) -> tuple[Session, Contract]:
    """Load a model and the contract in it.

    Args:
        model: The file's content.
        source: The file's name, for messages.
        thread: Where large batches are run.

    Raises:
        ModelFileError: It is not ONNX, or has no contract, or its graph is not what the contract says.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(model.content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelFileError(f"{source}: ONNX Runtime cannot load it: {reason}; package the model again") from error
    try:
        contract = Contract.from_metadata(session.get_modelmeta().custom_metadata_map, source)
    except ContractError as error:
        raise ModelFileError(str(error)) from error
    _check_nodes(source, "input", contract.tensor_inputs, session.get_inputs(), exactly=True)
    _check_nodes(source, "output", {o.name: o.dtype for o in contract.outputs}, session.get_outputs(), exactly=False)
    return Session(session.run, contract, thread), contract


def _check_nodes(source: str, what: str, wanted: Mapping[str, DType], nodes: Sequence[Any], *, exactly: bool) -> None:
    found = {node.name: node.type for node in nodes}
    for name, dtype in wanted.items():
        if name not in found:
            raise ModelFileError(f"{source}: the graph has no {what} {name} that the contract names; package it again")
        if found[name] != _ELEMENT_TYPES[dtype]:
            raise ModelFileError(
                f"{source}: {what} {name} is {found[name]} in the graph, {dtype} in the contract; package it again"
            )
    extra = sorted(found.keys() - wanted.keys())
    if exactly and extra:
        raise ModelFileError(f"{source}: the contract does not know the graph's {what} {extra[0]}; package it again")


def _rows_of(name: str, output: Any, rows: int) -> Array:
    array = np.asarray(output)
    if array.size != rows or array.ndim > _MAX_RANK:
        raise InferenceFailed(f"the model gave output {name} of shape {list(array.shape)} for {rows} rows")
    return array.reshape(rows)
