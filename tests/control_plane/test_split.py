"""The split through the real Envoy: who gets which variant, and what the gateway tells the servers."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest

from fairlead import Layout, assign
from fairlead.route import EXPERIMENT_HEADER, RouteKey, verify
from support.envoy import Headers, ManifestFile, Up, model, post, running, wait_until

SALT = "flights/arrival-delay/e1"
INFER = "/inference.GRPCInferenceService/ModelInfer"


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running(Up(ManifestFile.make(tmp_path_factory.mktemp("split")))) as up:
        yield up


def weigh(up: Up, boosted: float) -> Layout:
    up.manifest.weigh(boosted=boosted)
    wait_until(lambda: up.variant("boosted")["weight"] == boosted, 5, up.explain)
    return Layout.of("logistic", {"boosted": round(boosted * 100)})


def units(count: int) -> list[str]:
    odd = ["a b", "Zürich", "x" * 256, "%REQ(x)%", r"a\1b", "1:2/3", '"q"']
    return [*odd, *(f"N{index}" for index in range(count - len(odd)))]


async def rest_variants(up: Up, asking: list[str]) -> list[str]:
    answers = await post(up.port, [{"x-unit-id": unit} for unit in asking])
    assert {answer.status for answer in answers} == {200}
    assert all(answer.echo["variant"] == answer.variant for answer in answers)
    return [answer.variant for answer in answers]


async def grpc_call(channel: grpc.aio.Channel, metadata: list[tuple[str, str]]) -> tuple[str, dict[str, object]]:
    """Return the variant that the response names, and the echo."""
    call = channel.unary_unary(INFER)(b"", metadata=metadata, timeout=5)
    echo: dict[str, object] = json.loads(await call)
    sent = dict(await call.initial_metadata())
    return sent["x-variant"], echo


def fits_binomial(count: int, total: int, share: float) -> bool:
    return abs(count - total * share) < 4 * math.sqrt(total * share * (1 - share))


async def test_ten_thousand_units_land_where_assign_says_and_nobody_leaves_a_treatment_that_grows(up: Up) -> None:
    asking = units(10_000)
    seen: dict[float, list[str]] = {}
    for weight in (10, 50):
        layout = weigh(up, weight)
        seen[weight] = await rest_variants(up, asking)
        assert seen[weight] == [assign(unit, SALT, layout) for unit in asking]
        assert fits_binomial(seen[weight].count("boosted"), len(asking), weight / 100)
    left = [b for b, a in zip(seen[10], seen[50], strict=True) if b == "boosted" and a != "boosted"]
    assert left == []


@pytest.mark.parametrize("weight", [10, 50])
async def test_ten_thousand_units_land_there_over_grpc_too(up: Up, weight: float) -> None:
    layout = weigh(up, weight)
    asking = [unit for unit in units(10_000) if unit.isascii()]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{up.port}") as channel:
        call = channel.unary_unary(INFER)
        found = []
        for start in range(0, len(asking), 500):
            calls = [call(b"", metadata=[("x-unit-id", unit)], timeout=20) for unit in asking[start : start + 500]]
            found += [json.loads(await each)["variant"] for each in calls]
    assert found == [assign(unit, SALT, layout) for unit in asking]


async def test_the_experiment_header_verifies_and_says_what_the_gateway_does(up: Up) -> None:
    layout = weigh(up, 20)
    stored = json.loads((up.folder / "serving/route-keys.json").read_bytes())["keys"][0]
    keys = {stored["id"]: RouteKey(stored["id"], bytes.fromhex(stored["secret"]))}
    for answer in await post(up.port, [{"x-unit-id": f"u{index}"} for index in range(30)]):
        told = verify(answer.echo["headers"][EXPERIMENT_HEADER], keys)
        assert (told.salt, told.layout, told.unit_source) == (SALT, layout, "header:x-unit-id")
        assert (told.variant, told.revision) == (answer.variant, answer.echo["revision"])
        assert told.phase == up.status()["rollout"]["phase"]


FORGED = {EXPERIMENT_HEADER: "v1.k1.forged.mac", "x-variant": "boosted"}


@pytest.mark.parametrize(
    "headers",
    [
        FORGED,
        {**FORGED, "x-unit-id": ""},
        {**FORGED, "x-unit-id": "a,b"},
        {**FORGED, "x-unit-id": "x" * 257},
        [*FORGED.items(), ("x-unit-id", "a"), ("x-unit-id", "b")],
        [*FORGED.items(), ("x-unit-id", "a"), ("X-Unit-Id", "a")],
        {**FORGED, "x-fairlead-variant": "boosted"},
        {**FORGED, "x-fairlead-variant": "logistic", "x-unit-id": "u1"},
    ],
)
async def test_headers_forged_by_a_client_expose_nothing(up: Up, headers: Headers) -> None:
    [answer] = await post(up.port, [headers])
    sent = answer.echo["headers"]
    assert EXPERIMENT_HEADER not in sent
    assert "x-fairlead-variant" not in sent
    assert sent["x-variant"] == answer.variant == answer.echo["variant"]


async def test_a_forged_experiment_header_is_replaced_for_a_unit(up: Up) -> None:
    [answer] = await post(up.port, [[("x-unit-id", "u1"), *FORGED.items(), *FORGED.items()]])
    assert answer.echo["headers"][EXPERIMENT_HEADER] != FORGED[EXPERIMENT_HEADER]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{up.port}") as channel:
        _, echo = await grpc_call(channel, [*FORGED.items()])
    assert EXPERIMENT_HEADER not in echo["headers"]  # type: ignore[operator]


async def test_clients_cannot_steer_the_gateway_by_its_own_headers(up: Up) -> None:
    headers = {"x-envoy-upstream-rq-timeout-ms": "1", "x-envoy-max-retries": "9"}
    [answer] = await post(up.port, [headers], body=b'{"sleep_s": 0.05}')
    assert answer.status == 200


def test_secrets_are_readable_by_their_owner_only(up: Up) -> None:
    for secret in ("serving/route-keys.json", "envoy/routes.json"):
        assert (up.folder / secret).stat().st_mode & 0o077 == 0


async def test_a_large_request_passes(up: Up) -> None:
    [answer] = await post(up.port, [{"x-unit-id": "u1"}], body=json.dumps({"filler": "x" * 12_000_000}).encode())
    assert answer.status == 200


async def test_testers_choose_a_variant_over_both_protocols(up: Up) -> None:
    for variant in ("logistic", "boosted"):
        answers = await post(up.port, [{"x-fairlead-variant": variant, "x-unit-id": f"u{i}"} for i in range(20)])
        assert {answer.echo["variant"] for answer in answers} == {variant}
        async with grpc.aio.insecure_channel(f"127.0.0.1:{up.port}") as channel:
            assert (await grpc_call(channel, [("x-fairlead-variant", variant)]))[0] == variant


async def test_a_tester_who_names_no_variant_is_told_which_there_are(up: Up) -> None:
    [answer] = await post(up.port, [{"x-fairlead-variant": "bosted"}])
    assert answer.status == 400
    assert "variants are logistic, boosted" in json.loads(answer.body)["error"]


async def test_without_a_unit_control_answers_both_protocols(up: Up) -> None:
    weigh(up, 50)
    answers = await post(up.port, [{} for _ in range(50)])
    assert {answer.variant for answer in answers} == {"logistic"}
    async with grpc.aio.insecure_channel(f"127.0.0.1:{up.port}") as channel:
        assert {(await grpc_call(channel, []))[0] for _ in range(20)} == {"logistic"}


@pytest.mark.parametrize(
    "path",
    [
        "/metrics",
        "/",
        "/v2/models/../../metrics",
        "/v2%2f..%2fmetrics",
        "/v2/repository/models/x/load",
        "/v1/modelsx",
        "/v1/models/a%2Fb:predict",
    ],
)
async def test_other_paths_do_not_reach_a_server(up: Up, path: str) -> None:
    [answer] = await post(up.port, [{"x-unit-id": "u1"}], path=path)
    assert answer.status in {400, 404}
    assert answer.variant == ""
    assert json.loads(answer.body)["error"]


async def test_errors_of_the_gateway_have_the_servers_shape_and_grpc_its_own_codes(up: Up) -> None:
    [answer] = await post(up.port, [{}], path="/nothing")
    assert "no such path" in json.loads(answer.body)["error"]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{up.port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(INFER)(b"", metadata=[("x-fairlead-variant", "none")], timeout=5)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "names no variant" in str(caught.value.details())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/other.Service/Call")(b"", timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Three arms, a shadow, random draws without a unit, another unit header, a short timeout, no experiment."""
    folder = tmp_path_factory.mktemp("busy")
    manifest = ManifestFile.make(folder)
    manifest.spec["variants"] += [
        {"name": "third", "role": "Treatment", "model": model(folder, "third")},
        {"name": "next", "role": "Shadow", "model": model(folder, "next")},
    ]
    manifest.spec["routing"] = {"unit": {"header": "x-plane"}, "onMissingUnit": "Random", "timeout": "500ms"}
    manifest.spec["experiment"] = None
    manifest.weigh(boosted=12.34, third=30)
    with running(Up(manifest)) as up:
        yield up


async def test_three_arms_follow_the_law_without_an_experiment(busy: Up) -> None:
    layout = Layout.of("logistic", {"boosted": 1234, "third": 3000})
    asking = [f"N{index}" for index in range(3000)]
    answers = await post(busy.port, [{"x-plane": unit} for unit in asking])
    assert [a.variant for a in answers] == [assign(u, "flights/arrival-delay/rollout", layout) for u in asking]
    assert not any(EXPERIMENT_HEADER in a.echo["headers"] for a in answers)


async def test_without_a_unit_requests_are_drawn_by_weight(busy: Up) -> None:
    found = Counter(answer.variant for answer in await post(busy.port, [{} for _ in range(2000)]))
    for variant, share in (("boosted", 0.1234), ("third", 0.3), ("logistic", 0.5766)):
        assert fits_binomial(found[variant], 2000, share), found


async def test_shadows_get_a_copy_of_every_request_but_a_testers(busy: Up) -> None:
    [before, *_] = await post(busy.port, [{"x-fairlead-variant": "next"}])
    assert before.echo["variant"] == "next"

    async def served() -> int:
        async with httpx.AsyncClient(trust_env=False) as client:
            return int((await client.get(f"http://127.0.0.1:{busy.http_port('next')}/metrics")).text)

    start = await served()
    await post(busy.port, [{"x-plane": f"N{index}"} for index in range(100)])
    await post(busy.port, [{"x-fairlead-variant": "logistic"} for _ in range(10)])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{busy.port}") as channel:
        for index in range(20):
            await grpc_call(channel, [("x-plane", f"N{index}")])
    for _ in range(50):
        if await served() == start + 120:
            break
    assert await served() == start + 120


async def test_an_answer_that_takes_too_long_is_504_in_the_one_shape(busy: Up) -> None:
    [answer] = await post(busy.port, [{"x-plane": "N1"}], body=b'{"sleep_s": 2}')
    assert answer.status == 504
    assert "timeout" in json.loads(answer.body)["error"]


async def test_a_missing_unit_can_be_refused(tmp_path: Path) -> None:
    with running(Up(ManifestFile.make(tmp_path, routing={"onMissingUnit": "Reject"}))) as up:
        good, none, two = await post(up.port, [{"x-unit-id": "u"}, {}, [("x-unit-id", "a"), ("x-unit-id", "b")]])
        assert (good.status, none.status, two.status) == (200, 400, 400)
        assert "x-unit-id is required" in json.loads(none.body)["error"]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{up.port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(INFER)(b"", timeout=5)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
