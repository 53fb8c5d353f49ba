"""Simulates settings, chunk by chunk in processes, and keeps each one's result as soon as it is whole."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from simulate.population import Floats
from simulate.setting import Columns, Setting, summarise

_JUDGED = ("fairlead.experiment.", "simulate.")
"""Modules on which results rest: all of them that are loaded, but for those beside, which run and tell them."""
_BESIDE = ("simulate.telling", "simulate.main", "simulate.runner", "simulate.peers")
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "1000000000", "MALLOC_TRIM_THRESHOLD_": "2000000000"}
"""For the processes: glibc else gives each array of a megabyte back and asks for it anew, which takes half the time."""
SEED = 20_130_101
"""Of everything that is drawn."""

Result = Mapping[str, Any]
Summary = Mapping[str, float | None]
_RATIO_ERROR = 0.05
"""What the ratio of medians of a few runs is taken to be off by."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some runs of a setting, and the processor time they took."""

    columns: Columns
    cpu_s: float


def simulated(setting: Setting, number: int, runs: int) -> Chunk:
    """Simulate the chunk of that number, by its own seed."""
    started = time.process_time()
    seed = np.random.SeedSequence([SEED, zlib.crc32(setting.name.encode()), number])
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = setting.study(np.random.default_rng(seed), runs)
    return Chunk(columns, time.process_time() - started)


def result_of(setting: Setting, chunks: Iterable[Chunk], *, slack: float) -> Result:
    """Return what the chunks of a setting come to, and which of its claims hold."""
    gathered = list(chunks)
    columns = {name: np.concatenate([one.columns[name] for one in gathered]) for name in gathered[0].columns}
    summaries: dict[str, Summary] = {name: summarise(values) for name, values in columns.items() if values.ndim == 1}
    summaries |= _derived(summaries)
    return {
        "name": setting.name,
        "table": setting.table,
        "title": setting.title,
        "runs": _runs(columns),
        "cpu_s": round(sum(one.cpu_s for one in gathered), 3),
        "columns": summaries,
        "curves": {
            name: np.nanmean(values, axis=0).round(5).tolist() for name, values in columns.items() if values.ndim > 1
        },
        "claims": {str(claim): claim.holds(summaries[claim.column], slack=slack) for claim in setting.claims},
    }


def _derived(summaries: Mapping[str, Summary]) -> Mapping[str, Summary]:
    """Return what is not of a run but of all: how far a plan of the median stop is from the stop itself."""
    if "planned" not in summaries:
        return {}
    planned, seen = summaries["planned"]["median"], summaries["stop"]["median"]
    ratio = planned / seen if planned and seen and seen <= 1 else None
    return {"planned_over_seen": {**summaries["stop"], "mean": ratio, "se": _RATIO_ERROR}}


def in_one_process(setting: Setting, runs: int, *, slack: float) -> Result:
    """Simulate so many runs of a setting here and now."""
    return result_of(setting, (simulated(setting, *one) for one in _plan(setting, runs)), slack=slack)


def simulate_all(
    settings: Sequence[Setting],
    folder: Path,
    *,
    processes: int,
    share: float,
    advance: Callable[[Setting, int], None],
) -> Iterator[Result]:
    """Yield the result of every setting; those that were kept by the same code first.

    Args:
        settings: What to simulate.
        folder: Where results are kept, one file each.
        processes: How many at once.
        share: Of each setting's runs, for a shorter look.
        advance: Told of every chunk's runs when it is done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made_by = {setting.name: _made_by(setting, share) for setting in settings}
    slack = 0.0 if share >= 1 else 3.0
    left = []
    for setting in settings:
        kept = _kept(folder, setting, made_by[setting.name])
        if kept is None:
            left.append(setting)
        else:
            advance(setting, int(kept["runs"]))
            yield kept
    os.environ.update(_KEEP_MEMORY)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for setting, chunks in _whole(pool, left, share, advance):
            result = {**result_of(setting, chunks, slack=slack), "made_by": made_by[setting.name]}
            _file(folder, setting).write_text(json.dumps(result, indent=1) + "\n")
            yield result


def runs_of(setting: Setting, share: float) -> int:
    """Return how many runs a share of a setting's is: whole chunks, at least one."""
    return max(1, round(setting.runs * share / setting.chunk)) * setting.chunk


def _whole(
    pool: ProcessPoolExecutor, settings: Sequence[Setting], share: float, advance: Callable[[Setting, int], None]
) -> Iterator[tuple[Setting, list[Chunk]]]:
    asked: dict[Future[Chunk], tuple[Setting, int]] = {}
    missing: dict[str, int] = {}
    for setting in settings:
        plan = list(_plan(setting, runs_of(setting, share)))
        missing[setting.name] = len(plan)
        asked |= {pool.submit(simulated, setting, *one): (setting, one[0]) for one in plan}
    done: dict[str, dict[int, Chunk]] = defaultdict(dict)
    for future in as_completed(asked):
        setting, number = asked.pop(future)
        done[setting.name][number] = future.result()
        advance(setting, setting.chunk)
        if len(done[setting.name]) == missing[setting.name]:
            yield setting, [chunk for _, chunk in sorted(done.pop(setting.name).items())]


def _plan(setting: Setting, runs: int) -> Iterator[tuple[int, int]]:
    for number, start in enumerate(range(0, runs, setting.chunk)):
        yield number, min(setting.chunk, runs - start)


def _kept(folder: Path, setting: Setting, made_by: str) -> Result | None:
    path = _file(folder, setting)
    if not path.exists():
        return None
    result: Result = json.loads(path.read_text())
    return result if result["made_by"] == made_by else None


def _file(folder: Path, setting: Setting) -> Path:
    return folder / f"{setting.name}.json"


def _made_by(setting: Setting, share: float) -> str:
    """Return what names the code, the setting and the runs: what was made by another is made again."""
    digest = hashlib.sha256(f"{setting!r} {share} {SEED} {np.__version__}".encode())
    for name in sorted(sys.modules):
        if name.startswith(_JUDGED) and not name.startswith(_BESIDE):
            digest.update(Path(str(sys.modules[name].__file__)).read_bytes())
    return digest.hexdigest()


def _runs(columns: Mapping[str, Floats]) -> int:
    return len(next(iter(columns.values())))
