"""The command line of the hydration bench."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from bench.hydration import page
from bench.paths import BUILD, ROOT

CASE_NAMES = (
    "redis-30x1",
    "redis-30x100",
    "redis-30-32inflight",
    "redis-odfv-1",
    "redis-odfv-singleton-1",
    "sqlite-30x1",
)
_EXAMPLES = """examples:
  python tools/bench/hydration.py                      everything, a minute
  python tools/bench/hydration.py --quick              two short rounds
  python tools/bench/hydration.py --only redis-30x1    one case
  python tools/bench/hydration.py --hashes             HMGET beside HGETALL
  python tools/bench/hydration.py --write-docs         take the last run over into docs/performance-hydration.md

exit codes: 0 done, 1 something is missing or an answer is wrong, 2 wrong arguments"""


def main(arguments: Sequence[str]) -> int:
    """Measure, print and write; or write the page. Return the exit code."""
    told = _arguments(arguments)
    console = Console()
    if told.write_docs:
        console.print("\n".join(f"wrote {name}" for name in page.write(ROOT, BUILD)))
        return 0
    # Feast takes seconds to import, which --help and the page do without.
    from bench.hydration import hashes, run  # noqa: PLC0415
    from bench.hydration.rounds import WrongAnswer  # noqa: PLC0415
    from bench.hydration.server import NoRedis  # noqa: PLC0415

    try:
        if told.hashes:
            hashes.measure(console, quick=told.quick)
        else:
            run.measure(told.only, quick=told.quick, rounds=told.rounds, console=console)
            page.show(console, BUILD)
    except (NoRedis, WrongAnswer) as error:
        console.print(f"[bold red]hydration bench:[/] {escape(str(error))}", highlight=False)
        return 1
    return 0


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "tools/bench/hydration.py",
        description="Features beside Feast's own call and the bare round trip, answers compared first.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="two rounds of a tenth of the calls")
    parser.add_argument("--only", type=_names, default=(), metavar="CASE,…", help=f"of {', '.join(CASE_NAMES)}")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds")
    parser.add_argument("--hashes", action="store_true", help="measure HMGET and HGETALL on hashes like Feast's")
    parser.add_argument(
        "--write-docs", action="store_true", help="write the last run into docs/performance-hydration.*"
    )
    return parser.parse_args(arguments)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := set(names) - set(CASE_NAMES):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: none of {', '.join(CASE_NAMES)}")
    return names
