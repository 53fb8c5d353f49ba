"""Reads a prediction log; see ``fairlead.prediction_log`` for its form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from fairlead import prediction_log as form
from fairlead.contract import Contract
from fairlead.policy import Hydration
from fairlead.skew.errors import SkewError, said


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which rows of a log are compared."""

    model: str | None = None
    variant: str | None = None
    revision: str | None = None
    since: datetime | None = None
    """Served then or later."""
    until: datetime | None = None
    """Served before."""
    rows: int = 10_000
    """Of one contract at most; of more, so many evenly over the log."""


@dataclass(frozen=True, slots=True)
class LoggedModel:
    """What was served by one contract under one deployment's choices."""

    contract: Contract
    hydration: Hydration
    rows: pd.DataFrame
    """In the order of serving."""
    logged: int
    """Rows of the log that were chosen from."""


@dataclass(slots=True)
class _Kept:
    """Every so-manieth of the rows that came, so that there are never many more than are wanted."""

    most: int
    step: int = 1
    seen: int = 0
    frames: list[pd.DataFrame] = field(default_factory=list)

    def add(self, frame: pd.DataFrame) -> None:
        self.frames.append(frame.iloc[-self.seen % self.step :: self.step])
        self.seen += len(frame)
        while sum(map(len, self.frames)) > 2 * self.most:
            whole = pd.concat(self.frames, ignore_index=True)
            self.frames = [whole.iloc[::2]]
            self.step *= 2

    def rows(self) -> pd.DataFrame:
        whole = pd.concat(self.frames, ignore_index=True).sort_values(form.SERVED_AT, kind="stable", ignore_index=True)
        if len(whole) <= self.most:
            return whole
        places = [i * len(whole) // self.most for i in range(self.most)]
        return whole.iloc[places].reset_index(drop=True)


def read_log(path: Path, choice: Choice) -> list[LoggedModel]:
    """Read a log.

    Args:
        path: A file, or a folder with files at any depth.
        choice: Which rows.

    Returns:
        What was chosen, by contract and choices of hydration; those that were served first come first.

    Raises:
        SkewError: There is no log, a file is none, or nothing was chosen.
    """
    kept: dict[tuple[bytes, bytes], _Kept] = {}
    for file in _files(path):
        schema, frame = _read(file, choice)
        if len(frame):
            metadata = schema.metadata
            group = kept.setdefault((metadata[form.CONTRACT_KEY], metadata[form.HYDRATION_KEY]), _Kept(choice.rows))
            group.add(frame)
    if not kept:
        raise SkewError(f"{path}: has no row that was asked for; check --model, --variant, --revision and the times")
    models = [
        LoggedModel(
            Contract.model_validate_json(contract), Hydration.model_validate_json(hydration), of.rows(), of.seen
        )
        for (contract, hydration), of in kept.items()
    ]
    return sorted(models, key=lambda model: model.rows[form.SERVED_AT].iloc[0])


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    if not path.is_dir():
        raise SkewError(f"{path}: is not there; give the folder of --prediction-log")
    files = sorted(path.rglob(f"*{form.SUFFIX}"), key=lambda file: file.name)
    if not files:
        raise SkewError(
            f"{path}: has no {form.SUFFIX} file; start the server with --prediction-log, ask it, and wait for a file "
            "(--prediction-log-roll)"
        )
    yield from files


def _read(path: Path, choice: Choice) -> tuple[pa.Schema, pd.DataFrame]:
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            _check(path, schema.metadata or {}, set(schema.names))
            wanted = [name for name in schema.names if not name.startswith(form.OUTPUT)]
            table = file.read(columns=wanted)
    except (OSError, pa.ArrowException) as error:
        raise SkewError(f"{path}: cannot be read as Parquet ({said(error)}); remove it from the log") from error
    return schema, _chosen(table.to_pandas(), choice)


def _check(path: Path, metadata: Mapping[bytes, bytes], names: set[str]) -> None:
    written = metadata.get(form.FORMAT_KEY, b"").decode(errors="replace")
    if written != form.FORMAT:
        was = f"is of format {written!r}" if written else "is Parquet, but no prediction log"
        raise SkewError(f"{path}: {was}; {form.FORMAT} is read here")
    try:
        contract = Contract.model_validate_json(metadata[form.CONTRACT_KEY])
        Hydration.model_validate_json(metadata[form.HYDRATION_KEY])
    except (KeyError, ValidationError) as error:
        raise SkewError(f"{path}: its contract cannot be read; use the fairlead that wrote it") from error
    missing = sorted(form.KEY + key for key in contract.key_inputs if form.KEY + key not in names)
    if missing:
        raise SkewError(
            f"{path}: has no {missing[0]}; features are replayed by their keys, so the server must keep them "
            "(--prediction-log-keys=kept)"
        )


def _chosen(frame: pd.DataFrame, choice: Choice) -> pd.DataFrame:
    wanted: dict[str, Any] = {form.MODEL: choice.model, form.VARIANT: choice.variant, form.REVISION: choice.revision}
    keep = pd.Series(data=True, index=frame.index)
    for name, value in wanted.items():
        if value is not None:
            keep &= frame[name].astype(str) == value
    if choice.since is not None:
        keep &= frame[form.SERVED_AT] >= choice.since
    if choice.until is not None:
        keep &= frame[form.SERVED_AT] < choice.until
    return frame[keep]
