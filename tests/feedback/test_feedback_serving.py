"""What a server is told of feedback: read and written, and refused by field without a secret in the message."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from fairlead.feedback.kafka import KafkaTarget
from fairlead.feedback.keys import KeyRing, SigningKey
from fairlead.feedback.serving import Feedback, FeedbackError

_SECRET = b"\xab" * 16
_KEYS = KeyRing((SigningKey("k1", _SECRET), SigningKey("k0", b"\xcd" * 32)), units=b"\xef" * 16)
_FEEDBACK = Feedback(
    ledger="https://ledger.flights:8443/base",
    keys=_KEYS,
    api_key="server-1.t0psecret",
    covariates={"flights/delay/1": "carrier_daily__delay_rate"},
)


def test_what_is_dumped_is_loaded() -> None:
    assert Feedback.loaded(_FEEDBACK.dumped()) == _FEEDBACK
    assert Feedback.loaded(_FEEDBACK.dumped().encode()) == _FEEDBACK


def test_brokers_are_told_beside_the_ledger() -> None:
    kafka = KafkaTarget("b1:9092,b2:9092", config={"sasl.password": "t0psecret"})
    feedback = replace(_FEEDBACK, kafka=kafka)
    assert Feedback.loaded(feedback.dumped()) == feedback
    assert "kafka" not in json.loads(_FEEDBACK.dumped()), "files stay as they are where there is none"
    assert "t0psecret" not in repr(feedback)


def test_only_ledger_and_keys_are_needed() -> None:
    text = json.dumps({"ledger": "http://127.0.0.1:8090/", "keys": json.loads(_KEYS.dumped())})

    assert Feedback.loaded(text) == Feedback("http://127.0.0.1:8090", _KEYS)


def test_a_digest_names_the_text_whatever_a_server_understands_of_it() -> None:
    content = json.loads(_FEEDBACK.dumped())
    read = [Feedback.loaded(text).digest for text in (_FEEDBACK.dumped(), _FEEDBACK.dumped().encode())]
    newer = Feedback.loaded(json.dumps(content | {"unheard_of": 1})).digest
    other = Feedback.loaded(json.dumps(content | {"api_key": "server-2.t0psecret"})).digest

    assert read[0] == read[1]
    assert len({read[0], newer, other}) == 3


def test_what_a_newer_operator_tells_besides_is_passed_over() -> None:
    content = json.loads(_FEEDBACK.dumped()) | {"unheard_of": 1}

    assert Feedback.loaded(json.dumps(content)) == _FEEDBACK


def test_no_secret_is_shown() -> None:
    shown = repr(_FEEDBACK)

    assert "t0psecret" not in shown
    assert repr(_SECRET) not in shown
    assert _SECRET.hex() not in shown


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ledger", "ftp://ledger"),
        ("ledger", "http://"),
        ("ledger", "http://user:t0psecret@ledger"),
        ("ledger", "http://ledger:port"),
        ("ledger", 7),
        ("kafka", {"topic": "fairlead.exposures"}),
        ("kafka", {"bootstrap_servers": "b:9092", "topic": "a topic"}),
        ("kafka", {"bootstrap_servers": "b:9092", "config": {"acks": "t0psecret"}}),
        ("kafka", {"bootstrap_servers": "b:9092", "config": {"plugin.library.paths": "t0psecret"}}),
        ("api_key", "t0psecret\r\nhost: other"),
        ("keys", {"signing": [{"id": "k1", "secret": "t0psecret"}], "units": "ef" * 16}),
        ("keys", {"signing": [], "units": "ef" * 16}),
        ("keys", "t0psecret"),
        ("covariates", {"NO SALT": "feature"}),
        ("covariates", {"flights/delay/1": None}),
    ],
)
def test_a_wrong_field_is_named_without_its_value(field: str, value: Any) -> None:
    content = json.loads(_FEEDBACK.dumped()) | {field: value}

    with pytest.raises(FeedbackError, match=field) as caught:
        Feedback.loaded(json.dumps(content))

    assert "t0psecret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_what_is_no_json_is_said() -> None:
    with pytest.raises(FeedbackError, match=r"feedback\.json: JSON"):
        Feedback.loaded("t0psecret")
