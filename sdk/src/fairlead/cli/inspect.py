"""``fairlead inspect``: a model file's contract, for people and for programs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fairlead.cli.errors import USAGE, CommandError
from fairlead.contract import Contract, ContractError, DType, Feature, Scalar, sha256
from fairlead.policy import Action
from fairlead.route import UNIT_HEADER

DEFAULT_URL = "http://127.0.0.1:8080"
_PIPED_WIDTH = 120
"""Columns where no terminal says how many it has; digests stay whole."""
_ZERO: dict[DType, Scalar] = {
    "string": "?",
    "bool": False,
    "int64": 0,
    "int32": 0,
    "float32": 0.0,
    "float64": 0.0,
}


class OutputFormat(StrEnum):
    """How a command answers."""

    TABLE = "table"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A packaged model, as its file says it."""

    path: Path
    digest: str
    """``sha256:…`` of the file."""
    size_bytes: int
    contract: Contract


def inspect(
    model: Annotated[Path, typer.Argument(help="The packaged ONNX file.", show_default=False)],
    output: Annotated[OutputFormat, typer.Option("--output", "-o", help="What to print.")] = OutputFormat.TABLE,
    url: Annotated[str, typer.Option(help="Endpoint of the curl line.")] = DEFAULT_URL,
    unit_from: Annotated[
        str | None, typer.Option(help="Request input that is the unit in the curl line.", show_default="longest key")
    ] = None,
) -> None:
    """Show a model's contract: what it is, what it needs, what it answers, how good it was, and a curl line.

    Example: fairlead inspect build/flights/models/boosted.onnx
    """
    try:
        file = read_model(model)
        curl = curl_line(file.contract, url, unit_from)
    except ContractError as error:
        raise CommandError(str(error), USAGE) from error
    if output is OutputFormat.JSON:
        typer.echo(json.dumps(_document(file, curl), indent=2))
        return
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, _PIPED_WIDTH)
    for part in _tables(file):
        console.print(part)
        console.print()
    console.print("Try it:", style="bold")
    typer.echo(curl)


def read_model(path: Path) -> ModelFile:
    """Read a model's contract without loading the model into a runtime.

    Raises:
        ContractError: No such file, no ONNX in it, or no contract; the message names the file and the fix.
    """
    import onnx  # noqa: PLC0415 -- the other commands do not need it

    try:
        content = path.read_bytes()
    except OSError as error:
        raise ContractError(
            f"{path}: {(error.strerror or 'cannot be read').lower()}; give a packaged .onnx file"
        ) from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except Exception as error:
        raise ContractError(f"{path}: not an ONNX file; package a model with fairlead.package()") from error
    if not model.graph.node:
        raise ContractError(f"{path}: not an ONNX file; package a model with fairlead.package()")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return ModelFile(path, sha256(content), len(content), Contract.from_metadata(metadata, str(path)))


def example_instance(contract: Contract) -> dict[str, Scalar]:
    """Return one hydrated V1 instance: the contract's example, or plausible values from training and evaluation."""
    if contract.example:
        return {name: contract.example[name] for name in contract.key_inputs}
    return {name: _plausible(contract, name, dtype) for name, dtype in contract.key_inputs.items()}


def curl_line(contract: Contract, url: str, unit_from: str | None = None, *, header: str = UNIT_HEADER) -> str:
    """Return a shell command that asks ``url`` for one prediction over V1.

    Args:
        contract: The model's contract.
        url: Base of the endpoint.
        unit_from: Request input whose value is sent as the unit; None takes the key with the longest example, which
            is the most particular one: a plane rather than an airport.
        header: Request header that names the unit.

    Raises:
        ContractError: A request has no such input.
    """
    instance = example_instance(contract)
    if unit_from is not None and unit_from not in instance:
        raise ContractError(f"--unit-from {unit_from}: a request has {', '.join(instance)}; name one of these")
    keys = [entity.join_key for entity in contract.entities]
    particular = unit_from or max(keys, key=lambda key: len(str(instance[key])), default=None)
    unit = instance[particular] if particular else "u1"
    words = [
        *("curl", "-sS", f"{url.rstrip('/')}/v1/models/{contract.model}:predict"),
        *("-H", "content-type: application/json", "-H", f"{header}: {unit}"),
        *("-d", json.dumps({"instances": [instance]})),
    ]
    return shlex.join(words)


def _plausible(contract: Contract, name: str, dtype: DType) -> Scalar:
    slices = [e for e in contract.evaluation if e.slice.startswith(f"{name}=")]
    if dtype == "string" and slices:
        return max(slices, key=lambda e: e.rows).slice.partition("=")[2]
    for feature in contract.features:
        if feature.on_demand and feature.name == name and feature.statistics:
            return _typical(feature, dtype)
    return _ZERO[dtype]


def _typical(feature: Feature, dtype: DType) -> Scalar:
    statistics = feature.statistics
    if statistics is None:
        return _ZERO[dtype]
    if dtype == "string":
        return next(iter(statistics.categories), "?")
    median = statistics.quantiles.get("0.5", 0.0)
    if dtype == "bool":
        return bool(round(median))
    return round(median) if dtype.startswith("int") else median


def _document(file: ModelFile, curl: str) -> dict[str, Any]:
    return {
        "path": str(file.path),
        "model_digest": file.digest,
        "contract_digest": file.contract.digest,
        "size_bytes": file.size_bytes,
        "contract": json.loads(file.contract.to_json()),
        "curl": curl,
    }


def _tables(file: ModelFile) -> Iterator[Table]:
    contract = file.contract
    yield _identity(file)
    yield _features(contract)
    yield _request(contract)
    yield _answers(contract)
    if contract.evaluation:
        yield _evaluation(contract)


def _grid(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _identity(file: ModelFile) -> Table:
    contract, training = file.contract, file.contract.training
    table = _grid(f"{contract.model} {contract.version}", "", "")
    table.show_header = False
    for what, value in (
        ("file", f"{file.path} ({file.size_bytes:,} bytes)"),
        ("model digest", file.digest),
        ("contract digest", contract.digest),
        ("feature service", f"{contract.feature_service} (project {contract.project})"),
        ("fingerprint", contract.fingerprint),
        ("trained on", f"{training.rows:,} rows, {training.start} to {training.end}"),
        ("source data", training.data_digest),
        ("packages", ", ".join(f"{name} {version}" for name, version in sorted(contract.packages.items()))),
    ):
        table.add_row(what, value)
    return table


def _features(contract: Contract) -> Table:
    table = _grid(
        "Features by view, and how often they were missing in training",
        "feature",
        "dtype",
        "default",
        "missing",
        "if not present",
    )
    for _, features in groupby(contract.features, key=lambda feature: feature.view):
        for row, feature in enumerate(features):
            if row == 0:
                table.add_row(_view(feature), style="italic")
            table.add_row(f"  {feature.name}", feature.dtype, _default(feature), _missing(feature), _policy(feature))
    return table


def _view(feature: Feature) -> str:
    if feature.on_demand:
        return f"{feature.view}: on demand"
    ttl = f", ttl {_duration(feature.ttl_s)}" if feature.ttl_s else ""
    return f"{feature.view}: by {', '.join(feature.join_keys)}{ttl}"


def _default(feature: Feature) -> str:
    return "missing" if feature.default is None else str(feature.default)


def _missing(feature: Feature) -> str:
    statistics = feature.statistics
    return f"{statistics.missing / statistics.count:.1%}" if statistics and statistics.count else "-"


def _policy(feature: Feature) -> str:
    """Summarize a policy: the commonest action alone, then the states that differ from it."""
    if feature.on_demand:
        return "-"
    actions: dict[str, Action] = {state: getattr(feature.policy, state) for state in type(feature.policy).model_fields}
    usual = max(actions.values(), key=list(actions.values()).count)
    others = [f"{state} {action.value}" for state, action in actions.items() if action is not usual]
    return ", ".join([usual.value, *others])


def _request(contract: Contract) -> Table:
    table = _grid("A request brings", "name", "dtype", "is")
    for entity in contract.entities:
        table.add_row(entity.join_key, entity.dtype, f"key of entity {entity.name}")
    for request in contract.request_features:
        table.add_row(request.name, request.dtype, "request feature")
    return table


def _answers(contract: Contract) -> Table:
    table = _grid("It answers", "output", "dtype", "meaning")
    for output in contract.outputs:
        table.add_row(output.name, output.dtype, output.meaning)
    return table


def _evaluation(contract: Contract) -> Table:
    names = list(dict.fromkeys(metric for entry in contract.evaluation for metric in entry.metrics))
    table = _grid("On held-out rows", "slice", "rows", *names)
    for entry in contract.evaluation:
        scores = (f"{entry.metrics[name]:.4f}" if name in entry.metrics else "-" for name in names)
        table.add_row(entry.slice, f"{entry.rows:,}", *scores)
    return table


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
