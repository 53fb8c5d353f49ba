"""The ledger as a process: who may do what, bodies that are too long, and nothing a client does is a 5xx."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fairlead.experiment.design import Phase
from support.ledgers import (
    SALT,
    LedgerProcess,
    arm_of,
    design,
    exposure,
    ledger_process,
    outcomes,
    token,
)

WORD = "of tests alone"
ROLES = ("server", "application", "operator", "reader")
MOST_BYTES = 200_000
IDENTITY = "spiffe://cluster/ns/flights/sa/server"
TREATED = next(unit for unit in (f"u{number}" for number in range(99)) if arm_of(unit) == "boosted")


def _api_keys() -> list[dict[str, Any]]:
    hashed = hashlib.sha256(WORD.encode()).hexdigest()
    keys: list[dict[str, Any]] = [{"id": role, "hash": hashed, "roles": [role]} for role in ROLES]
    elsewhere = {"hash": hashed, "roles": list(ROLES), "deployments": ["flights/other"]}
    return [*keys, {"id": "elsewhere", **elsewhere}, {"id": "mesh", "identity": IDENTITY, "roles": ["server"]}]


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LedgerProcess]:
    folder = tmp_path_factory.mktemp("ledger")
    keys = folder / "api-keys.json"
    keys.write_text(json.dumps(_api_keys()))
    arguments = ("--api-keys", str(keys), "--identity-header", "x-forwarded-client-cert")
    with ledger_process(folder, arguments=(*arguments, "--max-body-bytes", str(MOST_BYTES))) as process:
        yield process


@pytest.fixture(scope="module")
def clients(ledger: LedgerProcess) -> Iterator[dict[str, httpx.Client]]:
    found = {role: ledger.client(headers={"authorization": f"Bearer {role}.{WORD}"}) for role in (*ROLES, "elsewhere")}
    found["nobody"] = ledger.client()
    found["operator"].put(f"/v1/experiments/{SALT}", content=design().model_dump_json()).raise_for_status()
    yield found
    for client in found.values():
        client.close()


Clients = dict[str, httpx.Client]


def report(sequence: int = 0, **parts: Any) -> dict[str, Any]:
    return {"server": "s1", "sequence": sequence, **parts}


@pytest.mark.parametrize(
    ("method", "path", "body", "allowed"),
    [
        ("POST", "/v1/exposures", report(exposures=[exposure(TREATED)]), {"server"}),
        ("POST", "/v1/outcomes", outcomes(), {"application"}),
        ("PUT", f"/v1/experiments/{SALT}", design().model_dump(mode="json"), {"operator"}),
        ("GET", "/v1/experiments", None, {"operator", "reader"}),
        ("GET", f"/v1/experiments/{SALT}", None, {"operator", "reader"}),
        ("DELETE", f"/v1/units/nobody?experiment={SALT}", None, {"application", "operator"}),
        ("GET", "/healthz", None, {*ROLES, "nobody"}),
        ("GET", "/readyz", None, {*ROLES, "nobody"}),
        ("GET", "/metrics", None, {*ROLES, "nobody"}),
    ],
)
def test_each_role_may_do_what_it_is_for(
    clients: Clients, method: str, path: str, body: dict[str, Any] | None, allowed: set[str]
) -> None:
    answers = {who: clients[who].request(method, path, json=body).status_code for who in (*ROLES, "nobody")}
    expected = {who: 200 if who in allowed else 401 if who == "nobody" else 403 for who in answers}
    assert answers == expected


@pytest.mark.parametrize("told", ["", "Bearer", "Bearer x", "Bearer server.wrong", "Basic c2VydmVy", "Bearer é.é"])
def test_whoever_is_not_known_is_told_how_to_be(ledger: LedgerProcess, told: str) -> None:
    with ledger.client() as client:
        answer = client.get("/v1/experiments", headers={b"authorization": told.encode("latin-1")})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert "API key" in answer.json()["error"]


def test_a_key_of_some_deployments_sees_and_tells_nothing_of_others(clients: Clients) -> None:
    client = clients["elsewhere"]
    assert client.get(f"/v1/experiments/{SALT}").status_code == 404
    assert client.get("/v1/experiments").json() == {"experiments": []}
    assert client.post("/v1/exposures", json=report(9, exposures=[exposure(TREATED)])).status_code == 403
    assert client.put(f"/v1/experiments/{SALT}", content=design().model_dump_json()).status_code == 403
    refused = client.post("/v1/outcomes", json=outcomes({"prediction_id": token(TREATED), "actual": 1})).json()
    assert [one["fate"] for one in refused["refused"]] == ["UnknownExperiment"]
    assert client.delete(f"/v1/units/u?experiment={SALT}").status_code == 404


def test_an_identity_that_the_proxy_has_verified_is_as_good_as_a_key(ledger: LedgerProcess) -> None:
    told = f'By=spiffe://a;Hash=ab;URI=spiffe://client/of/it,By=spiffe://b;Hash=cd;Subject="";URI={IDENTITY}'
    with ledger.client() as client:
        assert client.post("/v1/exposures", json=report(20), headers={"x-forwarded-client-cert": told}).is_success
        forged = f"By=x;URI={IDENTITY},By=spiffe://b;URI=spiffe://somebody"
        assert (
            client.post("/v1/exposures", json=report(), headers={"x-forwarded-client-cert": forged}).status_code == 401
        )


def test_keys_are_read_again_when_their_file_changes(ledger: LedgerProcess, clients: Clients) -> None:
    path = ledger.folder / "api-keys.json"
    before = path.read_text()
    hashed = hashlib.sha256(b"new").hexdigest()
    with ledger.client(headers={"authorization": "Bearer later.new"}) as client:
        assert client.get("/v1/experiments").status_code == 401
        path.write_text(json.dumps([*_api_keys(), {"id": "later", "hash": hashed, "roles": ["reader"]}]))
        assert client.get("/v1/experiments").status_code == 200
        path.write_text("[half")
        assert client.get("/v1/experiments").status_code == 200, "the last good ones hold"
    path.write_text(before)
    assert clients["reader"].get("/v1/experiments").status_code == 200


def test_a_design_is_declared_once_and_another_one_is_refused_by_its_first_field(clients: Clients) -> None:
    planned = design(salt="flights/arrival-delay/e2")
    path = f"/v1/experiments/{planned.salt}"
    put = [clients["operator"].put(path, content=planned.model_dump_json()).status_code for _ in range(2)]
    assert put == [201, 200]
    other = clients["operator"].put(path, json=design(salt=planned.salt, requests_per_unit=7).model_dump(mode="json"))
    assert other.status_code == 409
    assert "requests_per_unit" in other.json()["error"]
    told = clients["reader"].get(path).json()
    assert (told["state"], told["digest"], told["design"]["alpha"]) == ("Running", planned.digest, 0.05)


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/v1/outcomes", b"", 400, "JSON"),
        ("/v1/outcomes", b"[" * 100_000, 400, "JSON"),
        ("/v1/outcomes", b'{"outcomes": [{"prediction_id": "x", "actual": NaN}]}', 400, "outcomes.0"),
        ("/v1/outcomes", b'{"outcomes": [{"prediction_id": "\\ud800", "actual": 1}]}', 400, ""),
        ("/v1/outcomes", b'{"outcomes": [{"unit": "u", "metric": "click", "value": 1}]}', 400, "outcomes.0"),
        ("/v1/outcomes", b'{"outcomes": [], "more": 1}', 400, "more"),
        ("/v1/outcomes", b"\xff\xfe", 400, ""),
        ("/v1/outcomes", b"x" * (MOST_BYTES + 1), 413, "bytes"),
        ("/v1/exposures", json.dumps(report(1 << 60)).encode(), 400, ""),
        ("/v1/exposures", json.dumps(report(dropped=1 << 50)).encode(), 400, "count"),
        ("/v1/exposures", json.dumps(report(exposures=[exposure("u") | {"unit": "zz"}])).encode(), 400, "unit"),
        ("/v1/exposures", json.dumps(report() | {"server": "s\0"}).encode(), 400, "zero byte"),
        ("/v1/exposures", json.dumps(report(exposures=[exposure("u", revision="\0")])).encode(), 400, "zero byte"),
    ],
)
def test_a_body_that_is_not_understood_is_refused(
    clients: Clients, path: str, body: bytes, status: int, words: str
) -> None:
    client = clients["server" if "exposures" in path else "application"]
    answer = client.post(path, content=body)
    assert answer.status_code == status
    assert words in answer.json()["error"]


def test_designs_that_cannot_be_judged_are_refused(clients: Clients) -> None:
    wrong = [
        design(treatments=("boosted", "other"), phases=(Phase(number=0, weights_bp={"boosted": 6000}),)),
        design(control="boosted"),
        design(objective=None, guardrails=()),
    ]
    salts = [f"flights/arrival-delay/w{number}" for number in range(len(wrong))]
    answers = [
        clients["operator"].put(
            f"/v1/experiments/{salt}", json=one.model_dump(mode="json", warnings=False) | {"salt": salt}
        )
        for salt, one in zip(salts, wrong, strict=True)
    ]
    assert [answer.status_code for answer in answers] == [400] * 3


def test_gzip_is_inflated_within_bounds(clients: Clients) -> None:
    client, headers = clients["application"], {"content-encoding": "gzip"}
    whole = json.dumps(outcomes({"prediction_id": token(TREATED, number=77), "actual": 1})).encode()
    assert client.post("/v1/outcomes", content=gzip.compress(whole), headers=headers).json()["accepted"] == 1
    bomb = gzip.compress(b" " * 50_000_000)
    assert client.post("/v1/outcomes", content=bomb, headers=headers).status_code == 413
    for broken in (whole, gzip.compress(whole)[:-4], gzip.compress(whole) + b"more"):
        assert client.post("/v1/outcomes", content=broken, headers=headers).status_code == 400
    assert client.post("/v1/outcomes", content=whole, headers={"content-encoding": "br"}).status_code == 400


@pytest.mark.parametrize("path", ["/v1/experiments/a/b/c%00", "/v1/experiments/A/b/c", "/v1/units/u", "/nothing"])
def test_paths_that_name_nothing_are_4xx(clients: Clients, path: str) -> None:
    for method in ("GET", "PUT", "DELETE", "POST"):
        assert 400 <= clients["operator"].request(method, path).status_code < 500


def test_a_unit_is_erased_and_the_experiment_counts_it(clients: Clients) -> None:
    unit = "who/would be%forgotten ü"
    told = exposure(unit, variant="boosted")
    assert clients["server"].post("/v1/exposures", json=report(40, exposures=[told])).json() == {"new": True}
    path = httpx.URL("/v1/units/").join(f"/v1/units/{_quoted(unit)}?experiment={SALT}")
    before = clients["reader"].get(f"/v1/experiments/{SALT}").json()["erased"]
    assert [clients["application"].delete(path).json()["erased"] for _ in range(2)] == [True, False]
    assert clients["reader"].get(f"/v1/experiments/{SALT}").json()["erased"] == before + 1


def test_what_is_counted_is_told_to_prometheus(clients: Clients) -> None:
    told = {"prediction_id": token(TREATED, number=500), "actual": 1}
    clients["application"].post("/v1/outcomes", json=outcomes(told, told, {"prediction_id": "x", "actual": 1}))
    text = clients["nobody"].get("/metrics").text
    for fate in ("Accepted", "Duplicate", "Malformed"):
        assert f'fairlead_ledger_outcomes_total{{fate="{fate}"}}' in text
    assert 'fairlead_ledger_requests_total{code="200",route="/v1/outcomes"}' in text
    assert "fairlead_ledger_waiting_entries 0.0" in text
    assert "fairlead_ledger_pending_outcomes " in text
    assert "fairlead_ledger_fold_lag_seconds 0.0" in text
    clients["reader"].get(f"/v1/experiments/{SALT}/analysis")
    assert "fairlead_ledger_analysis_seconds_count 1.0" in clients["nobody"].get("/metrics").text


def test_neither_units_nor_secrets_are_logged(ledger: LedgerProcess, clients: Clients) -> None:
    clients["application"].delete(f"/v1/units/somebody-known?experiment={SALT}")
    clients["application"].post("/v1/outcomes", content=b'{"outcomes": [{"unit": "somebody-known"}]}')
    assert "somebody" not in ledger.log
    assert WORD not in ledger.log


def test_a_stopped_ledger_has_written_everything_that_it_has_answered(tmp_path: Path) -> None:
    with ledger_process(tmp_path) as process, process.client() as client:
        client.put(f"/v1/experiments/{SALT}", content=design().model_dump_json()).raise_for_status()
        told = outcomes({"prediction_id": token(TREATED), "actual": 1})
        assert client.post("/v1/outcomes", json=told).json()["accepted"] == 1
        assert process.stop() == 0
        process.start()
        with process.client() as again:
            assert again.post("/v1/outcomes", json=told).json()["duplicates"] == 1


def _quoted(unit: str) -> str:
    return "".join(f"%{byte:02X}" for byte in unit.encode())
