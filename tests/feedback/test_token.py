"""Prediction tokens: what is minted is read, what was changed anywhere is refused, and the documented vectors hold."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import re
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.feedback.keys import KeyRing, SigningKey
from fairlead.feedback.token import (
    MOST_OUTPUTS,
    NONCE_BYTES,
    Context,
    ForgedToken,
    Prediction,
    TokenError,
    mint,
    read,
)

DOCS = Path(__file__).parents[2] / "docs/concepts/feedback.md"
ROOT = KeyRing((SigningKey("k2", b"\x02" * 16), SigningKey("k1", b"\x01" * 32)), b"\x03" * 16)
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", fullmatch=True)
CONTEXTS = st.builds(
    Context,
    salt=st.builds("/".join, st.tuples(NAMES, NAMES, NAMES)),
    phase=st.integers(0, 2**16 - 1),
    revision=NAMES,
    variant=NAMES,
)
PREDICTIONS = st.builds(
    Prediction,
    context=CONTEXTS,
    unit=st.binary(min_size=16, max_size=16),
    time_us=st.integers(0, 2**63),
    rows=st.integers(1, 2**32 - 1),
    outputs=st.lists(st.floats(width=32, allow_nan=False), max_size=MOST_OUTPUTS).map(tuple),
    nonce=st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES),
)
ONE = Prediction(
    Context("flights/delay/1", 2, "delay-boosted-1", "boosted"), bytes(16), 1_767_225_600_000_000, 1, (0.25,), bytes(8)
)


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


CONTEXT = _encoded(ONE.context.encoded())


def minted(said: Prediction, root: KeyRing = ROOT, key: int = 0) -> str:
    ring = root.of(said.context.salt.rpartition("/")[0])
    return mint(
        ring.signing[key],
        said.context.encoded(),
        unit=said.unit,
        time_us=said.time_us,
        rows=said.rows,
        outputs=said.outputs,
        nonce=said.nonce,
    )


def vectors() -> dict[str, Any]:
    found = re.search(r"```json vectors\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert found is not None
    content: dict[str, Any] = json.loads(found[1])
    return content


@given(PREDICTIONS, st.integers(0, 1))
def test_what_is_minted_with_any_key_of_the_ring_is_read(said: Prediction, key: int) -> None:
    token = minted(said, key=key)
    assert read(token, ROOT) == said
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", token), "needs no escape in a URL or header"


@given(PREDICTIONS, st.data())
def test_a_token_with_another_character_is_refused(said: Prediction, data: st.DataObject) -> None:
    token = minted(said)
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from(f"{ALPHABET}.+/= ").filter(lambda character: character != token[place]))
    changed = f"{token[:place]}{other}{token[place + 1 :]}"
    with pytest.raises(TokenError):
        read(changed, ROOT)


@given(st.one_of(st.text(max_size=300), st.text(f"{ALPHABET}.", max_size=300).map("v1.k1.AQBh.{}".format)))
def test_no_made_up_text_is_a_token(text: str) -> None:
    with pytest.raises(TokenError):
        read(text, ROOT)


@given(st.binary(max_size=120))
def test_no_made_up_payload_is_a_token(payload: bytes) -> None:
    with pytest.raises(TokenError):
        read(f"v1.k1.{_encoded(payload)}.{_encoded(payload)}", ROOT)
    with pytest.raises(TokenError):
        read(f"v1.k1.{_encoded(ONE.context.encoded())}.{_encoded(payload)}", ROOT)


def test_a_token_of_another_root_or_deployment_is_forged() -> None:
    other = KeyRing((SigningKey("k2", b"\x09" * 16),), b"\x03" * 16)
    with pytest.raises(ForgedToken, match="differs"):
        read(minted(ONE, other), ROOT)
    theirs = mint(
        ROOT.of("flights/cancellation").signing[0],
        ONE.context.encoded(),
        unit=ONE.unit,
        time_us=ONE.time_us,
        rows=1,
        outputs=ONE.outputs,
        nonce=ONE.nonce,
    )
    with pytest.raises(ForgedToken, match="differs"):
        read(theirs, ROOT)


def test_a_token_of_a_key_that_was_taken_out_is_forged() -> None:
    with pytest.raises(ForgedToken, match="unknown key"):
        read(minted(ONE, key=1), KeyRing(ROOT.signing[:1], ROOT.units))


def test_the_key_ids_are_signed_too() -> None:
    twins = KeyRing((SigningKey("k1", bytes(16)), SigningKey("k2", bytes(16))), bytes(16))
    with pytest.raises(ForgedToken, match="differs"):
        read(minted(ONE, twins).replace("v1.k1.", "v1.k2."), twins)


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("", "version v1"),
        ("v2.k1.AAAA.AAAA", "version v1"),
        ("v1..AAAA.AAAA", "version v1"),
        ("v1.k1.AAAA", "version v1"),
        ("v1.k1.AAAA.AAAA.AAAA", "version v1"),
        ("v1.k1..AAAA", "context"),
        ("v1.k1.AAAA.AAAA", "context"),
        (f"v1.k1.{CONTEXT}.", "payload"),
        (f"v1.k1.{CONTEXT}.A", "base64url"),
        ("v1.k1.A+/A.AAAA", "base64url"),
        (f"v1.k1.{CONTEXT}.A+/A", "base64url"),
        (f"v1.k1.{CONTEXT}.é", "base64url"),
        (f"v1.k1.{CONTEXT}." + "A" * 40, "payload"),
        ("v1.k1." + "A" * 1100, "longer than 1024"),
    ],
)
def test_what_has_no_tokens_form_is_told_why_without_its_text(token: str, reason: str) -> None:
    with pytest.raises(TokenError, match=reason) as caught:
        read(token, ROOT)
    assert not isinstance(caught.value, ForgedToken)


def test_outputs_that_are_no_finite_numbers_travel_too() -> None:
    said = read(minted(Prediction(ONE.context, ONE.unit, 1, 2, (math.inf, math.nan), bytes(8))), ROOT)
    assert said.outputs[0] == math.inf
    assert math.isnan(said.outputs[1])


def test_the_documented_vectors_hold() -> None:
    told = vectors()
    root, ring = KeyRing.loaded(json.dumps(told["root"])), KeyRing.loaded(json.dumps(told["ring"]))
    unit = ring.unit(told["unit"].encode(), told["salt"])
    context = Context(told["salt"], told["phase"], told["revision"], told["variant"])
    assert root.of(told["salt"].rpartition("/")[0]) == ring
    assert unit.hex() == told["digest"]
    for vector in told["tokens"]:
        outputs = tuple(vector["outputs"])
        said = Prediction(context, unit, told["time_us"], vector["rows"], outputs, bytes.fromhex(told["nonce"]))
        assert minted(said, root) == vector["token"]
        assert read(vector["token"], root) == said


def test_the_documented_layout_is_the_payloads() -> None:
    """Reads a vector by the table alone, without our code."""
    told = vectors()
    vector = told["tokens"][1]
    head, _, body = vector["token"].rpartition(".")
    _, _, context = head.rpartition(".")
    raw = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
    shared = base64.urlsafe_b64decode(context + "=" * (-len(context) % 4))
    payload, mac = raw[:-16], raw[-16:]
    secret = hmac.new(
        bytes.fromhex(told["root"]["signing"][0]["secret"]), b"token:flights/arrival-delay", hashlib.sha256
    ).digest()
    assert hashlib.blake2b(f"{head}.".encode() + payload, digest_size=16, key=secret).digest() == mac
    assert payload[:16].hex() == told["digest"]
    assert int.from_bytes(payload[16:24], "little") == told["time_us"]
    assert payload[24:32].hex() == told["nonce"]
    assert int.from_bytes(payload[32:36], "little") == vector["rows"]
    assert payload[36] == 2
    assert list(struct.unpack("<2f", payload[37:])) == vector["outputs"]
    assert int.from_bytes(shared[:2], "little") == told["phase"]
    assert shared[2:].decode().split("\0") == [told["salt"], told["revision"], told["variant"]]
