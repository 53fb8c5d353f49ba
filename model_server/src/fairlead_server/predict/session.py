"""ONNX Runtime: opens a model file, checks it against digest and contract, and runs it."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairlead.contract import METADATA_KEY, Contract, ContractError, DType, sha256
from fairlead.onnx_runtime import onnxruntime
from fairlead_server.errors import InferenceFailed, InvalidRequest, ModelFileError, RequestError
from fairlead_server.hydrate.thread import WorkerThread
from fairlead_server.predict.graph import Run, run_of, signature_of, tried
from fairlead_server.predict.signature import Signature

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
_SEED = 7
_MOST_SIZES = 256
_REASON_CHARACTERS = 400
_EXTERNAL_DATA = "session.model_external_initializers_file_folder_path"
"""Where ONNX Runtime looks for tensors that a model keeps in files of their own."""
_STATES = onnxruntime.capi.onnxruntime_pybind11_state
_REFUSALS = (_STATES.InvalidArgument, _STATES.Fail, _STATES.RuntimeException)
"""What ONNX Runtime raises when nodes of the graph do not take what they are given."""
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


class Runs:
    """What a session has run, since it was opened; told from any thread."""

    __slots__ = ("_by_rows", "_lock", "count", "last_s", "rows")

    def __init__(self) -> None:
        """Start at nothing."""
        self.count = 0
        self.rows = 0
        self.last_s = 0.0
        """When the last run ended, by ``time.perf_counter``."""
        self._by_rows: dict[int, tuple[int, float]] = {}
        self._lock = threading.Lock()

    def add(self, rows: int, start_s: float) -> None:
        """Count a run of ``rows`` rows that ends now."""
        now_s = time.perf_counter()
        with self._lock:
            self.count += 1
            self.rows += rows
            self.last_s = now_s
            known = self._by_rows.get(rows)
            if known is not None:
                self._by_rows[rows] = (known[0] + 1, known[1] + now_s - start_s)
            elif len(self._by_rows) < _MOST_SIZES:
                self._by_rows[rows] = (1, now_s - start_s)

    def forget(self) -> None:
        """Start at nothing again, after runs that nobody asked for."""
        with self._lock:
            self.count = self.rows = 0
            self._by_rows.clear()

    def by_rows(self) -> list[tuple[int, tuple[int, float]]]:
        """Return how many runs there were and what they took, in seconds, by their rows."""
        with self._lock:
            return sorted(self._by_rows.items())


class Session:
    """One loaded model: arrays by input name in, arrays by output name out."""

    def __init__(self, run: Run, signature: Signature, thread: WorkerThread, *, blames_input: bool = False) -> None:
        """Wrap ONNX Runtime's ``run``; see :func:`open_session`.

        Args:
            run: What runs the model.
            signature: What it takes and gives.
            thread: Where large batches are run.
            blames_input: Whether a failed run is the input's fault: a graph that was not made for its requests may
                refuse values (an index beyond a table) or dimensions that do not go together.
        """
        self.signature = signature
        self._run = run
        self._blames_input = blames_input
        self._outputs = list(signature.outputs)
        self._columns = frozenset(name for name, spec in signature.outputs.items() if spec.column)
        self._reshaped = [name for name, spec in signature.inputs.items() if spec.column]
        self._thread = thread
        self.runs = Runs()
        """What was run."""

    async def run(self, columns: Mapping[str, Array], rows: int) -> dict[str, Array]:
        """Run the model.

        Args:
            columns: Every input of the graph by name, of the signature's types and shapes; columns as [rows].
            rows: Number of rows; 1 for a model that has none.

        Returns:
            The outputs by name; columns as [rows].

        Raises:
            InferenceFailed: ONNX Runtime failed, or an output has another number of rows.
            InvalidRequest: The graph takes no such values.
        """
        if rows <= _ROWS_ON_LOOP:
            return self.run_now(columns, rows)
        return await self._thread.submit(lambda: self.run_now(columns, rows))

    def run_now(self, columns: Mapping[str, Array], rows: int) -> dict[str, Array]:
        """Run the model in the thread of whoever calls; see :meth:`run`."""
        feed = {name: columns[name].reshape(rows, 1) for name in self._reshaped} if self._reshaped else columns
        start_s = time.perf_counter()
        try:
            found = self._run(self._outputs, feed)
        except Exception as error:
            raise self._failure(error) from error
        self.runs.add(rows, start_s)
        if not self._columns:
            arrays = {name: _as_array(output) for name, output in zip(self._outputs, found, strict=True)}
            if self.signature.batched:
                _require_rows(arrays, rows)
            return arrays
        return {name: _rows_of(name, output, rows) for name, output in zip(self._outputs, found, strict=True)}

    async def warm_up(self) -> None:
        """Run the model a few times, so that no request pays for its first run."""
        inputs = self.signature.inputs
        feed = {name: np.full(1, "" if spec.dtype == np.object_ else 0, spec.dtype) for name, spec in inputs.items()}
        for _ in range(_WARM_UP_RUNS):
            await self.run(feed, 1)

    def close(self) -> None:
        """Let the thread for large batches end."""
        self._thread.close()

    def _failure(self, error: Exception) -> RequestError:
        if self._blames_input and isinstance(error, _REFUSALS):
            reason = (str(error) or type(error).__name__).splitlines()[0][:_REASON_CHARACTERS]
            return InvalidRequest(f"the model does not take this input: {reason}")
        return InferenceFailed(f"the model failed with {type(error).__name__}")


def open_session(
    model: ModelFile, source: str, thread: WorkerThread, *, may_be_plain: bool = False
) -> tuple[Session, Contract | None]:
    """Load a model and the contract in it.

    Args:
        model: The file's content.
        source: The file's path, for messages, and for what a plain model keeps in files beside it.
        thread: Where large batches are run.
        may_be_plain: Whether a model may come without a contract: its graph alone then says what it takes.

    Returns:
        The session, and the contract; None for a plain model, which has then been warmed up.

    Raises:
        ModelFileError: It is not ONNX, or has no contract and needs one, or its graph is not what the contract says,
            or has inputs or outputs that no request can carry.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if may_be_plain:
        options.add_session_config_entry(_EXTERNAL_DATA, str(Path(source).parent))
    try:
        session = onnxruntime.InferenceSession(model.content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelFileError(f"{source}: ONNX Runtime cannot load it: {reason}; package the model again") from error
    metadata = session.get_modelmeta().custom_metadata_map
    if may_be_plain and METADATA_KEY not in metadata:
        run = run_of(session)
        signature = tried(run, signature_of(session, source), np.random.default_rng(_SEED))
        return Session(run, signature, thread, blames_input=True), None
    try:
        contract = Contract.from_metadata(metadata, source)
    except ContractError as error:
        plainly = "" if METADATA_KEY in metadata else ", or leave out --feature-store to serve it as its graph is"
        raise ModelFileError(f"{error}{plainly}") from error
    _check_nodes(source, "input", contract.tensor_inputs, session.get_inputs(), exactly=True)
    _check_nodes(source, "output", {o.name: o.dtype for o in contract.outputs}, session.get_outputs(), exactly=False)
    return Session(session.run, Signature.of_contract(contract), thread), contract


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


def _require_rows(outputs: Mapping[str, Array], rows: int) -> None:
    for name, array in outputs.items():
        if len(array) != rows:
            raise InferenceFailed(f"the model gave output {name} of shape {list(array.shape)} for {rows} rows")


def _as_array(output: Any) -> Array:
    return output if isinstance(output, np.ndarray) else np.asarray(output)
