"""The command: fuzz targets one after the other, or replay inputs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fuzz.paths import FINDINGS, ROOT
from fuzz.targets import TARGETS

_EXAMPLES = f"""targets: {", ".join(f"{target.name} ({target.what})" for target in TARGETS.values())}

examples:
  make fuzz                                            ten minutes each: nine tenths inside, the rest a whole server
  make fuzz ARGS="--seconds 60 --only v2-json"         one target, one minute
  python tools/fuzz replay build/fuzz/findings/http/*  show again what was found

exit codes: 0 nothing was found, 1 something was, 2 wrong arguments"""
_SECONDS = 600.0


def main(arguments: Sequence[str]) -> int:
    """Do what is asked; return the exit code."""
    told = _arguments(arguments)
    if told.what == "replay":
        from fuzz.replay import replay  # noqa: PLC0415 -- seconds of imports

        return replay(told.files)
    if told.what == "inside":
        from fuzz.worker import work  # noqa: PLC0415 -- likewise

        work(told.only[0], told.seconds, told.seed)
        return 0
    from fuzz.campaign import campaign  # noqa: PLC0415 -- likewise

    return campaign(told.only or list(TARGETS), told.seconds, told.seed, ways=told.ways)


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "make fuzz",
        description="Broken and odd bytes for every decoder and engine of the model server.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", nargs="?", choices=["run", "replay", "inside"], default="run", help=argparse.SUPPRESS)
    parser.add_argument(
        "files", nargs="*", type=Path, metavar="FILE", help="inputs to replay; their folder names the target"
    )
    parser.add_argument("--seconds", type=float, default=_SECONDS, metavar="N", help="for each target (default: 600)")
    parser.add_argument(
        "--only", action="append", choices=list(TARGETS), metavar="TARGET", help="this target; again for more"
    )
    parser.add_argument("--ways", choices=["both", "inside", "server"], default="both", help="how targets are driven")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of all chance (default: 1)")
    told = parser.parse_args(arguments)
    if told.what == "replay" and not told.files:
        parser.error(f"name files of {FINDINGS.relative_to(ROOT)} to replay")
    return told


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
