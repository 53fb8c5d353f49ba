"""Requests of a known form, whatever protocol they came by: rows wait for the turn's run, then an answer is written."""

from __future__ import annotations

from time import perf_counter

from fairlead_server.errors import InferenceFailed, RequestError
from fairlead_server.exposure.experiment import Outcome
from fairlead_server.exposure.routes import Headers
from fairlead_server.metrics import Stage
from fairlead_server.predict.batch import Columns, Waiting
from fairlead_server.predict.joint import Part
from fairlead_server.protocol.service import Served


class Path:
    """One model asked over one protocol, and the counters that move with each of its requests."""

    __slots__ = ("answered", "batch", "decode", "encode", "exposures", "protocol", "served", "unexposed")

    def __init__(self, served: Served, protocol: str) -> None:
        """Answer from ``served``; requests are counted under ``protocol``."""
        metrics = served.predictor.metrics
        self.served = served
        self.protocol = protocol
        self.batch = served.predictor.batch
        self.exposures = served.exposures
        self.answered = metrics.requests(protocol, "200" if protocol.endswith("rest") else "OK")
        self.unexposed = metrics.exposed(Outcome.NONE)
        self.decode = metrics.durations(Stage.DECODE)
        self.encode = metrics.durations(Stage.ENCODE)


class Formed(Waiting):
    """One request; a protocol says how it is answered."""

    __slots__ = ("headers", "path", "start_s")

    path: Path
    headers: Headers | None
    """None if no experiment is named in them."""
    start_s: float
    """By ``perf_counter``, when its last byte was there."""

    def begin(self, rows: Columns, count: int, deadline_s: float | None) -> None:
        """Have the rows run.

        Args:
            rows: Decoded.
            count: Number of rows.
            deadline_s: When the client gives up, by the event loop's time; None if it does not say.
        """
        self.columns = rows
        self.rows = count
        self.deadline_s = deadline_s
        self.path.decode.add(perf_counter() - self.start_s)
        self.path.batch.enqueue(self)

    def done(self, outcome: Columns | RequestError) -> None:
        """Answer."""
        if type(outcome) is not Part:
            self.refuse(outcome if isinstance(outcome, RequestError) else InferenceFailed("rows were not run as rows"))
            return
        try:
            self.answer(outcome)
        except Exception as error:  # noqa: BLE001 -- the top of a request: a client never sees a traceback
            self.refuse(error)

    def token(self, part: Part) -> bytes | None:
        """Take note that the answer is written, and return the prediction's token; None without an exposure."""
        path, joint = self.path, part.joint
        now_s = perf_counter()
        path.encode.add(now_s - joint.mark_s)
        joint.mark_s = now_s
        if self.headers is None:
            path.unexposed.value += 1
            return None
        latency_us = int((now_s - self.start_s) * 1e6)
        return path.exposures.settled(self.headers, part, self.columns, latency_us, degraded=False)

    @property
    def elapsed_us(self) -> int:
        """Microseconds since the request was there."""
        return int((perf_counter() - self.start_s) * 1e6)

    def answer(self, part: Part) -> None:
        """Answer with what the rows gave."""
        raise NotImplementedError

    def refuse(self, error: Exception) -> None:
        """Answer with why they gave nothing."""
        raise NotImplementedError
