"""The command line of ``make bench``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from bench import page
from bench.cases import CASES
from bench.hydration import page as of_hydration
from bench.machine import be_nice
from bench.paths import BUILD, ROOT
from bench.systems import SYSTEMS

_EXAMPLES = """examples:
  make bench                                          everything, a quarter of an hour
  make bench ARGS=--quick                             two short rounds, nothing besides
  make bench ARGS="--only fairlead,native,grpc-1x16"  some systems, some cases
  make bench ARGS=--write-docs                        take the last run over into docs/performance.md

exit codes: 0 done, 1 something is missing, or the page differs from its data, 2 wrong arguments"""


def main(arguments: Sequence[str]) -> int:
    """Check answers, measure, print and write; or write or check the page. Return the exit code."""
    told = _arguments(arguments)
    if told.write_docs:
        print("\n".join(f"wrote {name}" for name in (*page.write(ROOT, BUILD), *of_hydration.write(ROOT, BUILD))))
        return 0
    if told.check_docs:
        differing = [*page.differing(ROOT), *of_hydration.differing(ROOT)]
        for name in differing:
            print(f"{name}: differs from what `python tools/bench --write-docs` makes of its data")
        return 1 if differing else 0
    from bench.measure import measure  # noqa: PLC0415 -- seconds of imports that the page does without

    be_nice(told.nice)
    return measure(told.only, quick=told.quick, rounds=told.rounds, seconds=told.seconds)


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "make bench",
        description="Model servers side by side: CPU per request, answers checked first.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="two rounds of one second instead of four of two")
    parser.add_argument("--only", type=_names, default=(), metavar="NAME,…", help="only these systems and cases")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of the main cases")
    parser.add_argument("--seconds", type=int, metavar="N", help="seconds of a round")
    parser.add_argument(
        "--nice", type=int, default=0, metavar="N", help="niceness of servers and load, below 0 where others work too"
    )
    parser.add_argument("--write-docs", action="store_true", help="write the last run into docs/performance.*")
    parser.add_argument("--check-docs", action="store_true", help="whether docs/performance.md is what its data make")
    return parser.parse_args(arguments)


def _names(text: str) -> tuple[str, ...]:
    known = {case.name for case in CASES} | {system.name for system in SYSTEMS}
    names = tuple(text.split(","))
    if unknown := set(names) - known:
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: none of {', '.join(sorted(known))}")
    return names
