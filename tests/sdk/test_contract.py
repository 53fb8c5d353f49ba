"""The contract: one canonical text, names that are unique, and errors that say what to do."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fairlead.contract import (
    METADATA_KEY,
    Contract,
    ContractError,
    Entity,
    Evaluation,
    Feature,
    RequestFeature,
    Statistics,
    sha256,
)
from fairlead.policy import Action, Policy
from support.models import make_contract

NAMES = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=12)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
ACTIONS = st.sampled_from(Action)

statistics = st.builds(
    Statistics,
    count=st.integers(0, 10**9),
    missing=st.integers(0, 10**9),
    mean=st.none() | FINITE,
    std=st.none() | FINITE,
    quantiles=st.dictionaries(st.sampled_from(["0", "0.5", "1"]), FINITE),
    categories=st.dictionaries(st.text(max_size=8), st.integers(0, 10**9), max_size=3),
)
features = st.builds(
    Feature,
    view=NAMES,
    name=NAMES,
    dtype=st.sampled_from(["float32", "float64", "int64", "int32", "bool", "string"]),
    on_demand=st.booleans(),
    join_keys=st.lists(NAMES, max_size=2).map(tuple),
    ttl_s=st.none() | st.floats(1, 1e7),
    default=st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | FINITE | st.text(max_size=8),
    policy=st.builds(
        Policy, null=ACTIONS, not_found=ACTIONS, never_written=ACTIONS, stale=ACTIONS, store_error=ACTIONS
    ),
    statistics=st.none() | statistics,
)
contracts = st.lists(features, min_size=1, max_size=4, unique_by=lambda f: f.input).map(make_contract)


def metadata_of(contract: Contract) -> dict[str, str]:
    return {METADATA_KEY: contract.to_json()}


def feature(**fields: Any) -> Feature:
    return Feature(**({"view": "plane", "name": "seats", "dtype": "float32"} | fields))


@given(contract=contracts)
def test_a_contract_survives_the_way_through_a_models_metadata(contract: Contract) -> None:
    again = Contract.from_metadata(metadata_of(contract), "m.onnx")
    assert again == contract
    assert again.to_json() == contract.to_json()
    assert again.digest == contract.digest


@given(contract=contracts)
def test_the_text_is_canonical_json(contract: Contract) -> None:
    text = contract.to_json()
    assert json.dumps(json.loads(text), sort_keys=True, separators=(",", ":")) == text


@given(contract=contracts)
def test_a_default_keeps_its_type(contract: Contract) -> None:
    again = Contract.from_metadata(metadata_of(contract), "m.onnx")
    assert [type(f.default) for f in again.features] == [type(f.default) for f in contract.features]


def test_the_digest_changes_with_any_field() -> None:
    contract = make_contract([feature()])
    assert contract.model_copy(update={"version": "2"}).digest != contract.digest


def test_a_model_without_contract_says_how_to_get_one() -> None:
    with pytest.raises(ContractError, match=r"m\.onnx: no contract .* fairlead\.package\(\)"):
        Contract.from_metadata({}, "m.onnx")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"format": "fairlead.dev/contract/v2"}, "format"),
        ({"fingerprint": "sha256:12"}, "fingerprint"),
        ({"features": []}, "features"),
        ({"surprise": 1}, "surprise"),
        ({"outputs": [{"name": "p", "dtype": "float32", "meaning": "guess"}]}, r"outputs\.0\.meaning"),
        ({"model": "a b"}, "model"),
    ],
)
def test_a_contract_that_cannot_be_read_names_its_field(change: dict[str, Any], field: str) -> None:
    document = json.loads(make_contract([feature()]).to_json()) | change
    with pytest.raises(ContractError, match=rf"m\.onnx: contract field {field}: "):
        Contract.from_metadata({METADATA_KEY: json.dumps(document)}, "m.onnx")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"model": NaN}'])
def test_text_that_is_no_contract_is_refused(text: str) -> None:
    with pytest.raises(ContractError, match=r"m\.onnx: contract field"):
        Contract.from_metadata({METADATA_KEY: text}, "m.onnx")


def test_a_feature_listed_twice_is_refused() -> None:
    with pytest.raises(ValidationError, match="feature plane__seats is listed twice"):
        make_contract([feature(), feature()])


def test_a_request_value_under_the_name_of_a_key_is_refused() -> None:
    with pytest.raises(ValidationError, match="request input origin is listed twice"):
        make_contract(
            [feature()],
            entities=[Entity(name="origin", join_key="origin", dtype="string")],
            request_features=[RequestFeature(name="origin", dtype="int64")],
        )


def test_a_request_brings_keys_and_request_features_by_name() -> None:
    contract = make_contract(
        [feature()],
        entities=[Entity(name="airport", join_key="origin", dtype="string")],
        request_features=[RequestFeature(name="hour", dtype="int64")],
    )
    assert contract.key_inputs == {"origin": "string", "hour": "int64"}
    assert contract.tensor_inputs == {"plane__seats": "float32"}


def test_an_example_has_exactly_what_a_request_brings() -> None:
    contract = make_contract([feature()], request_features=[RequestFeature(name="hour", dtype="int64")])
    document = json.loads(contract.to_json())
    assert Contract.model_validate(document | {"example": {"hour": 5}}).example == {"hour": 5}
    with pytest.raises(ValidationError, match="the example has minute, a request has hour"):
        Contract.model_validate(document | {"example": {"minute": 5}})


@pytest.mark.parametrize(
    ("fields", "takes_missing", "needs_default"),
    [
        ({}, True, False),
        ({"default": 1.0}, False, False),
        ({"default": 1.0, "policy": Policy(stale=Action.NULL)}, True, False),
        ({"default": 1.0, "policy": Policy(null=Action.USE)}, True, False),
        ({"dtype": "string"}, False, True),
        ({"dtype": "string", "default": ""}, False, False),
        ({"dtype": "string", "default": "", "policy": Policy(null=Action.NULL)}, False, True),
        ({"dtype": "int64", "on_demand": True}, False, False),
        ({"dtype": "int64", "policy": Policy(**dict.fromkeys(Policy.model_fields, Action.REJECT))}, False, False),
    ],
)
def test_policy_default_and_type_decide_whether_a_model_meets_missing_values(
    fields: dict[str, Any], takes_missing: bool, needs_default: bool
) -> None:
    assert feature(**fields).takes_missing is takes_missing
    assert feature(**fields).needs_default is needs_default


def test_records_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        make_contract([feature()]).model = "other"  # type: ignore[misc]


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_numbers_that_json_cannot_say_are_refused_at_once(number: float) -> None:
    with pytest.raises(ValidationError, match=r"metrics\.log_loss"):
        Evaluation(slice="all", rows=1, metrics={"log_loss": number})
    with pytest.raises(ValidationError, match="default"):
        feature(default=number)


def test_a_digest_is_spelled_with_its_algorithm() -> None:
    assert sha256(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
