"""Predictions of the lane: a request's rows on their way to the turn's run, and its answer on the way back."""

from __future__ import annotations

from functools import partial
from typing import Protocol

from fairlead_server.errors import RequestError
from fairlead_server.exposure.routes import Headers
from fairlead_server.metrics import Stage, StageTimer
from fairlead_server.predict.joint import Part
from fairlead_server.predict.request import PredictResponse
from fairlead_server.protocol import v1, v2
from fairlead_server.protocol.call import InferCall
from fairlead_server.protocol.columns import ColumnForms
from fairlead_server.protocol.formed import Formed, Path
from fairlead_server.protocol.forms import Form, Forms
from fairlead_server.protocol.paths import Resource, Target
from fairlead_server.protocol.rest import PROTOCOLS, Answer, by_deadline, encode_v1, octets, refusal, with_token
from fairlead_server.protocol.service import Served, Service


class Asker(Protocol):
    """Who has asked: one connection."""

    def write_prediction(self, body: bytes, token: bytes | None) -> None:
        """Answer with a prediction in JSON, and its token if there is one."""

    def write_answer(self, answer: Answer) -> None:
        """Answer with anything."""


class Route(Path):
    """A path of predictions over REST, and the forms of its requests."""

    __slots__ = ("connection", "forms", "is_v1", "service", "target")

    def __init__(self, target: Target, served: Served, service: Service) -> None:
        """Answer ``target`` from ``served``, which is one of ``service``'s."""
        super().__init__(served, PROTOCOLS[target.resource])
        self.target = target
        self.service = service
        self.is_v1 = target.resource is Resource.V1_PREDICT
        self.forms: Forms | ColumnForms = (Forms if served.schema.is_plain else ColumnForms)(served.schema)
        self.connection = served.predictor.connection

    @property
    def ready(self) -> bool:
        """Whether rows may be run without asking the predictor."""
        return self.connection is None or self.connection.ready

    def refusal(self, error: Exception, headers: Headers | None, elapsed_us: int) -> Answer:
        """Count a request that gets no prediction, and return its answer; ``headers`` as for ``Formed``."""
        self.exposures.failed({} if headers is None else headers, error, elapsed_us)
        answer = refusal(self.service.failure(error, self.protocol))
        self.service.metrics_of(self.target.model).count_request(self.protocol, str(answer.status))
        return answer


class FormedRequest(Formed):
    """A request of a known form, and its answer."""

    __slots__ = ("asker", "form")

    path: Route
    asker: Asker
    form: Form

    def answer(self, part: Part) -> None:
        """Answer."""
        body, json_length = self.form.answer(part)
        token = self.token(part)
        self.path.answered.value += 1
        if json_length is None:
            self.asker.write_prediction(body, token)
        else:
            self.asker.write_answer(with_token(Answer(200, body, octets(json_length)), token))

    def refuse(self, error: Exception) -> None:
        """Answer."""
        self.asker.write_answer(self.path.refusal(error, self.headers, self.elapsed_us))


class Strict:
    """A request that is read as the application reads it, and its answer."""

    __slots__ = ("_asker", "_encode", "_headers", "_route", "_timer")

    def __init__(self, asker: Asker, route: Route, headers: Headers | None) -> None:
        """Answer ``asker``; ``headers`` are None if no experiment is named in them."""
        self._asker = asker
        self._route = route
        self._headers = headers
        self._timer: StageTimer = route.served.predictor.metrics.timer()

    def begin(self, body: bytes, json_length: bytes | None, deadline_s: float | None) -> None:
        """Read the body, and have its rows run."""
        served = self._route.served
        call: InferCall | None = None
        try:
            if self._route.is_v1:
                request = v1.decode(body, served.schema)
                self._encode = partial(encode_v1, schema=served.schema)
            else:
                call = v2.decode(body, None if json_length is None else json_length.decode("latin-1"), served.schema)
                request = call.request
                self._encode = partial(v2.encode, call, schema=served.schema)
            self._timer.lap(Stage.DECODE)
            served.predictor.submit(by_deadline(request, deadline_s), self._timer, self._answer)
        except Exception as error:  # noqa: BLE001 -- the top of a request: a client never sees a traceback
            self._fail(error)
            return
        self._route.forms.learn(body, json_length, call)

    def _answer(self, outcome: PredictResponse | RequestError) -> None:
        if isinstance(outcome, RequestError):
            self._fail(outcome)
            return
        timer, exposures = self._timer, self._route.exposures
        try:
            body, json_length = self._encode(outcome)
            timer.lap(Stage.ENCODE)
            if self._headers is None:
                exposures.count_unexposed()
                token = None
            else:
                token = exposures.answered(self._headers, outcome, timer.elapsed_us)
        except Exception as error:  # noqa: BLE001 -- as above
            self._fail(error)
            return
        self._route.answered.value += 1
        if json_length is None:
            self._asker.write_prediction(body, token)
        else:
            self._asker.write_answer(with_token(Answer(200, body, octets(json_length)), token))

    def _fail(self, error: Exception) -> None:
        self._asker.write_answer(self._route.refusal(error, self._headers, self._timer.elapsed_us))
