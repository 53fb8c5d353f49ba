"""What a message says, what settings say, and what the library says of itself: without a broker."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from fairlead.feedback.messages import ExposureReport, OutcomeBatch
from fairlead_ledger.errors import StartupError
from fairlead_ledger.kafka.messages import Read, Received, Unread, parts, read, received
from fairlead_ledger.kafka.settings import KafkaSettings, config_of
from fairlead_ledger.kafka.statistics import statistics
from fairlead_ledger.settings import from_arguments
from support.ledgers import NOON_US, exposure, outcomes, token

BATCH = json.dumps(outcomes({"prediction_id": token("u1"), "actual": 1})).encode()
REPORT = json.dumps({"server": "s1", "sequence": 0, "exposures": [exposure("u1", NOON_US)]}).encode()


def message(value: bytes, encoding: str = "") -> Received:
    return Received("t", 1, 7, value, encoding)


@pytest.mark.parametrize(
    ("value", "encoding", "kind"),
    [(BATCH, "", OutcomeBatch), (gzip.compress(BATCH), "gzip", OutcomeBatch), (REPORT, "identity", ExposureReport)],
)
def test_a_message_is_read_as_a_body_over_http_is(value: bytes, encoding: str, kind: Any) -> None:
    found = read(message(value, encoding), kind, 4096)
    assert isinstance(found, Read)
    assert isinstance(found.told, kind)


@pytest.mark.parametrize(
    ("value", "encoding", "reason"),
    [
        (b"", "", "body: Invalid JSON"),
        (REPORT, "", "outcomes: Field required"),
        (BATCH, "gzip", "is not gzip"),
        (BATCH, "zstd", "content-encoding"),
        (b" " * 5000, "", "more than 4096 bytes"),
        (gzip.compress(b" " * 5000), "gzip", "when inflated"),
    ],
)
def test_what_cannot_be_read_says_why(value: bytes, encoding: str, reason: str) -> None:
    found = read(message(value, encoding), OutcomeBatch, 4096)
    assert isinstance(found, Unread)
    assert reason in found.reason


def test_headers_may_be_anything() -> None:
    assert received("t", 0, 0, None, None) == Received("t", 0, 0, b"")
    assert received("t", 0, 0, "é", [("other", None), ("Content-Encoding", b"gzip")]).encoding == "gzip"
    assert received("t", 0, 0, b"", {"content-encoding": b"\xff"}).encoding == "\ufffd"


def test_parts_keep_order_and_a_bounded_weight() -> None:
    batch = OutcomeBatch.model_validate_json(BATCH)
    heavy = Read(message(b""), batch.model_copy(update={"outcomes": batch.outcomes * 4000}))
    unread = Unread(message(b""), "")
    found = [list(part) for part in parts([unread, heavy, heavy, unread])]
    assert found == [[unread, heavy], [heavy, unread]]
    assert list(parts([])) == []


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ('{"security.protocol": "SASL_SSL", "socket.keepalive.enable": true, "session.timeout.ms": 9000}', None),
        (
            "# of the cluster\nsecurity.protocol = SASL_SSL\n\nsocket.keepalive.enable=true\nsession.timeout.ms=9000",
            None,
        ),
        ("sasl.password=a=b # c", {"sasl.password": "a=b # c"}),
    ],
)
def test_settings_are_json_or_lines(text: str, settings: dict[str, str] | None, tmp_path: Path) -> None:
    (tmp_path / "kafka").write_text(text)
    wanted = {"security.protocol": "SASL_SSL", "socket.keepalive.enable": "true", "session.timeout.ms": "9000"}
    assert config_of(tmp_path / "kafka") == (settings or wanted)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "line 1"),
        ("{", "neither"),
        ('{"a": {}}', "no JSON object of texts"),
        ("enable.auto.commit=true", "enable.auto.commit is set by the program itself"),
        ("plugin.library.paths=/tmp/x", "loads code"),
        ("sasl.password", "line 1 is not name=value"),
    ],
)
def test_settings_that_may_not_be_are_refused_without_a_value(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "kafka").write_text(text)
    with pytest.raises(StartupError, match=message):
        config_of(tmp_path / "kafka")
    with pytest.raises(StartupError, match="No such file"):
        config_of(tmp_path / "absent")


def test_nothing_is_committed_or_skipped_but_by_the_ledger() -> None:
    kafka = KafkaSettings("b:9092", config={"sasl.password": "s", "session.timeout.ms": "9000"})
    consumer, producer = kafka.consumer(), kafka.producer()
    assert (consumer["enable.auto.commit"], consumer["auto.offset.reset"]) == (False, "earliest")
    assert (producer["acks"], producer["enable.idempotence"]) == ("all", True)
    assert "session.timeout.ms" not in producer
    assert "sasl.password" not in repr(kafka)


def test_topics_are_two() -> None:
    serve = ["serve", "--database", "sqlite:///x", "--keys", "k", "--open"]
    assert from_arguments(None, serve).kafka_bootstrap_servers is None
    with pytest.raises(SystemExit):
        from_arguments(None, [*serve, "--kafka-outcomes-topic", "fairlead.exposures"])
    with pytest.raises(SystemExit):
        from_arguments(None, [*serve, "--kafka-outcomes-topic", "a topic"])


def test_lag_is_what_is_not_committed_of_the_partitions_that_are_read() -> None:
    told = {
        "brokers": {"b": {"state": "UP"}, "other": {"state": "DOWN"}},
        "topics": {
            "t": {
                "partitions": {
                    "0": {"fetch_state": "active", "ls_offset": 9, "lo_offset": 2, "committed_offset": 4},
                    "1": {"fetch_state": "active", "ls_offset": 9, "lo_offset": 2, "committed_offset": -1001},
                    "2": {"fetch_state": "active", "ls_offset": -1001, "lo_offset": -1001, "committed_offset": -1001},
                    "-1": {"fetch_state": "none", "ls_offset": 0, "lo_offset": 0, "committed_offset": 0},
                }
            }
        },
    }
    found = statistics(json.dumps(told))
    assert found.is_connected
    assert found.lags == {("t", 0): 5, ("t", 1): 7}
    assert not statistics("{}").is_connected
