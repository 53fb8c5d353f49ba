"""The command: start a server, load it at half of what it can do, judge."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import uvloop
from bench.measure import MODEL
from bench.model import asked, make
from bench.ours import ledger
from rich.console import Console
from rich.markup import escape

from soak import report, traffic
from soak.run import Outcome, soak
from soak.server import BUILD, serving

_EXAMPLES = """examples:
  make soak                             ten minutes
  make soak ARGS="--minutes 1"          one minute, in stretches of six seconds
  make soak ARGS="--engine python"      gRPC by hyper-h2

exit codes: 0 everything held, 1 something did not, 2 wrong arguments"""
_FEW_MINUTES = 5


def main(arguments: Sequence[str]) -> int:
    """Soak; return the exit code."""
    told = _arguments(arguments)
    console = Console()
    if not MODEL.exists():
        console.print("training the model (once)")
        make(MODEL)
    questions = traffic.of(asked(MODEL))
    stretch_s = 60.0 if told.minutes >= _FEW_MINUTES else 6.0
    progress = _Progress(console)
    with ledger() as reports, serving(MODEL, reports, told.engine) as server:
        outcome = uvloop.run(soak(server, questions, told.minutes * 60, stretch_s, progress.say))
        exit_code = server.stop()
        heard = reports.heard["soak"]
    failed = report.failures(outcome, heard, exit_code)
    report.write(BUILD, outcome, heard, failed)
    _tell(console, outcome, heard.requests, failed)
    return 1 if failed else 0


class _Progress:
    """A line now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown = 0
        self._said_s = time.monotonic()

    def say(self, outcome: Outcome) -> None:
        """Print stretches that are new."""
        if not self._shown and not outcome.stretches and time.monotonic() - self._said_s > 1:
            self._said_s = float("inf")
            share = outcome.saturation_cpu_share
            self._console.print(
                f"saturated at {outcome.saturation_per_s:,.0f} requests/s, the server using {share:.0%} of a core",
                highlight=False,
            )
        for one in outcome.stretches[self._shown :]:
            self._console.print(
                f"{one.end_s:.0f} s: {one.requests_per_s:,.0f} requests/s, p50 {one.p50_us:,.0f} us, "
                f"p99 {one.p99_us:,.0f} us, {one.resident_bytes / 2**20:.1f} MiB",
                highlight=False,
            )
        self._shown = len(outcome.stretches)


def _tell(console: Console, outcome: Outcome, heard: int, failed: Sequence[str]) -> None:
    console.print(report.table(outcome))
    counts = ", ".join(f"{count:,} {kind}" for kind, count in sorted(outcome.answered.items()))
    console.print(
        f"answered: {counts}; {outcome.garbage} connections with garbage; reported exposed: {heard:,}", highlight=False
    )
    console.print(f"memory grew by {report.growth(outcome.stretches):.2%} after warming up", highlight=False)
    for what in failed:
        console.print(f"[bold red]failed:[/] {escape(what)}", highlight=False)


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "make soak",
        description="The model server at half of saturation, REST and gRPC mixed, with 1 % of broken requests.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=_minutes, default=10.0, metavar="N", help="default: 10")
    parser.add_argument(
        "--engine", choices=["auto", "native", "python"], default="auto", help="of gRPC (default: auto)"
    )
    return parser.parse_args(arguments)


def _minutes(text: str) -> float:
    value = float(text)
    if not value >= 0.5:  # noqa: PLR2004 -- less has no stretch after warming up
        raise argparse.ArgumentTypeError(f"{text}: give minutes from 0.5")
    return value
