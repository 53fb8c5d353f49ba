"""What an operator takes with many ModelDeployments: cold start, memory, CPU while nothing happens.

    .venv/bin/python tools/operator_scale.py [DEPLOYMENTS ...]

The operator is a process of its own with a controller that does nothing; the API server is the one in memory.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.scale import measured


async def main(sizes: list[int]) -> None:
    """Measure each size and print a line."""
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            print(await measured(Path(folder), deployments=size, settle_s=6, steady_s=20), flush=True)


if __name__ == "__main__":
    asyncio.run(main([int(given) for given in sys.argv[1:]] or [100, 1000]))
