"""The model server as it is, but one variant takes longer to answer: ``python -m flights.slowed VARIANT MS …``.

It stands for what a better model so often brings along. Everything else, latency's measurement included, is the
server's own.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from fairlead_server.__main__ import main as serve


def main() -> int:
    """Serve, slowed if the arguments are for that variant."""
    variant, pause_ms, *arguments = sys.argv[1:]
    sys.argv[1:] = arguments
    if variant in arguments[arguments.index("--variant") + 1 : arguments.index("--variant") + 2]:
        _slow_down(float(pause_ms) / 1e3)
    return serve()


def _slow_down(pause_s: float) -> None:
    from fairlead_server.predict.predictor import Predictor  # noqa: PLC0415 -- the other variant starts no slower

    predict = Predictor.predict

    async def slowed(self: Any, *given: Any) -> Any:
        await asyncio.sleep(pause_s)
        return await predict(self, *given)

    setattr(Predictor, predict.__name__, slowed)


if __name__ == "__main__":
    sys.exit(main())
