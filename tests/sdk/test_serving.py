"""A server's report survives the way through V2 metadata, and what is none is refused by the field at fault."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.contract import sha256
from fairlead.serving import (
    MAX_DIFFERENCE_CHARACTERS,
    MAX_DIFFERENCES,
    ExperimentCounts,
    RegistryReport,
    ReportError,
    ServerReport,
)

DIGESTS = st.binary(max_size=4).map(sha256)
COUNTS = st.integers(min_value=0, max_value=2**53)
REGISTRIES = st.builds(
    RegistryReport.of,
    st.none() | DIGESTS,
    st.lists(st.text(max_size=300), max_size=20),
    reads=COUNTS,
    failures=COUNTS,
)
REPORTS = st.builds(
    ServerReport,
    model_digest=DIGESTS,
    contract_digest=DIGESTS,
    contract_fingerprint=DIGESTS,
    registry=REGISTRIES,
    requests=st.builds(ExperimentCounts, exposed=COUNTS, mismatched=COUNTS, shadow=COUNTS, rejected=COUNTS),
)


def report(**fields: Any) -> ServerReport:
    usual = {
        "model_digest": sha256(b"model"),
        "contract_digest": sha256(b"contract"),
        "contract_fingerprint": sha256(b"service"),
        "feature_service": "small",
        "variant": "boosted",
        "revision": "boosted-1",
        "ready": True,
        "degraded": False,
    }
    return ServerReport(**usual | fields)


@given(REPORTS)
def test_a_report_comes_back_from_metadata_as_it_went_in(written: ServerReport) -> None:
    sent = json.loads(json.dumps({"name": "m", "parameters": written.to_parameters()}))
    assert ServerReport.from_metadata(sent) == written


@given(REPORTS)
def test_parameters_are_the_scalars_that_the_protocol_has(written: ServerReport) -> None:
    assert all(type(value) in {str, bool, int} for value in written.to_parameters().values())


def test_differences_are_bounded_and_counted() -> None:
    registry = RegistryReport.of(sha256(b"other"), ["x" * 1000] * 1000, reads=1, failures=0)
    assert len(registry.differences) == MAX_DIFFERENCES
    assert {len(text) for text in registry.differences} == {MAX_DIFFERENCE_CHARACTERS}
    assert registry.differences_total == 1000


@pytest.mark.parametrize(
    ("fingerprint", "differences", "fits"),
    [(sha256(b""), [], True), (sha256(b""), ["x"], False), (None, ["gone"], False), (None, [], None)],
)
def test_a_registry_fits_if_it_was_read_and_nothing_differs(
    fingerprint: str | None, differences: list[str], fits: bool | None
) -> None:
    assert RegistryReport.of(fingerprint, differences, reads=0, failures=0).fits is fits


def test_a_header_is_verified_or_rejected() -> None:
    counts = ExperimentCounts(exposed=1, mismatched=2, shadow=4, rejected=8)
    assert counts.verified == 7
    assert counts.with_header == 15


def test_a_newer_server_may_tell_more() -> None:
    parameters = report().to_parameters() | {"registry_age_s": 3, "requests_other": 1, "mood": "good"}
    assert ServerReport.from_metadata({"parameters": parameters}) == report()


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"model_digest": "abc"}, "model_digest"),
        ({"ready": None}, "ready"),
        ({"requests_exposed": -1}, "requests.exposed"),
        ({"registry_fingerprint": "abc"}, "registry.fingerprint"),
        ({"registry_differences": "{"}, "registry_differences"),
        ({"registry_differences": 1}, "registry_differences"),
        ({"registry_differences": "{}"}, "registry.differences"),
    ],
)
def test_what_is_wrong_is_named(changed: dict[str, Any], field: str) -> None:
    with pytest.raises(ReportError, match=f"report field {field}: "):
        ServerReport.from_metadata({"parameters": report().to_parameters() | changed})


@pytest.mark.parametrize("document", [{}, {"parameters": None}, {"parameters": []}, [], None, "text"])
def test_another_servers_metadata_is_no_report(document: Any) -> None:
    with pytest.raises(ReportError, match="is this a Fairlead server"):
        ServerReport.from_metadata(document)
