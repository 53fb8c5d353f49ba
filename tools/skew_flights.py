"""Skew on real data: a day of the flights example is served while features are published late, then compared.

    .venv/bin/python tools/skew_flights.py [--publish-every N] [--rows N]

600 flights of 4 November 2013 are asked for, at the ten minutes at which each is due; only at every N-th of these
moments what is known by then is published to the online store, so that with N = 1 nothing may differ. Wants the models
of the example (``make demo``). The table is printed, JSON and picture are written to build/skew/.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fairlead.clock import to_us
from flights import raw
from flights.paths import BUILD
from support.flights import copied_repo
from support.replayed import World, keys_of
from support.server_process import server_process

DAY = "2013-11-04"
RESULTS = Path("build/skew")


def main() -> int:
    """Serve, compare and write; return the exit code of ``fairlead skew``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--publish-every", type=int, default=3, metavar="N", help="default: %(default)s")
    parser.add_argument("--rows", type=int, default=600, metavar="N", help="flights (default: %(default)s)")
    asked = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repo = copied_repo(folder / "repo", online=False)
        _serve(folder, repo, _flights(asked.rows), asked.publish_every)
        compare = [
            str(Path(sys.executable).with_name("fairlead")),
            "skew",
            str(folder / "log"),
            "--feature-store",
            str(repo),
        ]
        done = subprocess.run([*compare, "--picture", str(RESULTS / "flights.svg")], check=False)
        with (RESULTS / "flights.json").open("w") as file:
            subprocess.run([*compare, "--json"], check=False, stdout=file)
    return done.returncode


def _flights(rows: int) -> pd.DataFrame:
    every = raw.load_flights()
    of_day = every[every["asked_at"].dt.strftime("%Y-%m-%d") == DAY]
    drawn: pd.DataFrame = of_day.sample(rows, random_state=7).sort_values("asked_at")
    return drawn


def _serve(folder: Path, repo: Path, flights: pd.DataFrame, publish_every: int) -> None:
    world = World.at(repo, flights["asked_at"].min())
    model = ["--model", str(BUILD / "models" / "boosted.onnx"), "--model-name", "arrival-delay", "--variant", "boosted"]
    log = ["--prediction-log", str(folder / "log"), "--prediction-log-sample", "1"]
    clock = ["--feature-store", str(repo), "--clock", f"replay:{world.clock_file}"]
    with server_process(folder, [*model, *log, *clock]) as server:
        server.wait_ready()
        with httpx.Client(base_url=server.url, timeout=30) as client:
            for place, (_, due) in enumerate(flights.groupby("asked_at", sort=True)):
                moment = due["asked_at"].iloc[0]
                if place % publish_every == 0:
                    world.move_to(moment)
                else:
                    world.clock.set_us(to_us(moment))
                keys = {key: column.tolist() for key, column in keys_of(due).items()}
                instances = [dict(zip(keys, row, strict=True)) for row in zip(*keys.values(), strict=True)]
                client.post("/v1/models/arrival-delay:predict", json={"instances": instances}).raise_for_status()
        server.stop()


if __name__ == "__main__":
    sys.exit(main())
