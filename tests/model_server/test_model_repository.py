"""Several models in one process: found in a folder, loaded, replaced and unloaded while they are asked."""

from __future__ import annotations

import asyncio
import gc
import weakref
from pathlib import Path

import pytest

from fairlead.contract import Feature
from fairlead_server.errors import ClientLeft, LoadRefused, RequestError, StartupError, UnknownModel
from fairlead_server.predict.repository import find_models
from fairlead_server.protocol.grpc.messages import pb
from fairlead_server.protocol.grpc.methods import InferenceMethods
from fairlead_server.settings import from_arguments
from support.models import make_contract, write_model
from support.repository_models import WIDTH, write_looping, write_scaled
from support.repository_stand import ROW, stand
from support.waiting import until

EXPLICIT = ("--model-control=explicit", "--load-model", "*")


def test_a_folder_has_models_in_three_layouts(tmp_path: Path) -> None:
    for path in ("a.onnx", "b/model.onnx", "c/1/model.onnx", "c/10/model.onnx", "c/9/model.onnx", "c/old/model.onnx"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    for path in ("readme.txt", ".hidden.onnx", "d/2/other.onnx", "..data/1/model.onnx", "e/01/model.onnx"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    found = find_models(tmp_path)
    versions = {name: [place.version for place in model.places] for name, model in found.items()}
    assert versions == {"a": [None], "b": [None], "c": ["10", "9", "1"]}
    assert [place.version for place in find_models(tmp_path, latest_only=True)["c"].places] == ["10"]


@pytest.mark.parametrize("paths", [("a.onnx", "a/model.onnx"), ("a/model.onnx", "a/1/model.onnx")])
def test_a_model_that_is_there_in_two_layouts_is_none(tmp_path: Path, paths: tuple[str, str]) -> None:
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    found = find_models(tmp_path)["a"]
    assert not found.places
    assert "keep one of them" in found.problem


async def test_models_are_asked_by_name_and_version_and_the_highest_answers_whoever_names_none(tmp_path: Path) -> None:
    write_scaled(tmp_path / "a.onnx", 2)
    write_scaled(tmp_path / "b/9/model.onnx", 3)
    write_scaled(tmp_path / "b/10/model.onnx", 4)
    async with stand(tmp_path) as models:
        asked = [await models.factor(path) for path in ("a", "b", "b/versions/9", "b/versions/10", "a/versions/1")]
        assert asked == [2, 4, 3, 4, 2]
        assert (await models.ask("b/versions/11")).status_code == 404
        assert (await models.ask("c")).status_code == 404
        assert (await models.client.get("/v2/models/b")).json()["versions"] == ["10", "9"]
        assert (await models.client.get("/v2/models")).json() == {"models": ["a", "b"]}
        assert await models.index() == {("a", "1"): "", ("b", "10"): "", ("b", "9"): ""}
        labels = {"model": "b", "variant": "", "protocol": "v2-rest", "code": "200"}
        assert models.registry.get_sample_value("fairlead_requests_total", labels) == 3


async def test_models_with_a_contract_and_plain_ones_stand_side_by_side(tmp_path: Path) -> None:
    write_scaled(tmp_path / "plain.onnx", 2)
    contract = make_contract([Feature(view="plane", name="seats", dtype="float32", join_keys=("tailnum",))])
    (tmp_path / "late/7").mkdir(parents=True)
    write_model(tmp_path / "late/7/model.onnx", contract)
    async with stand(tmp_path) as models:
        assert await models.factor("plain") == 2
        tensor = {"name": "plane__seats", "datatype": "FP32", "shape": [1], "data": [0.0]}
        for path in ("late", "late/versions/7"):
            answer = await models.client.post(f"/v2/models/{path}/infer", json={"inputs": [tensor]})
            assert (answer.json()["model_version"], answer.json()["outputs"][0]["data"]) == ("7", [0.5])
        assert (await models.client.get("/v2/models/late/versions/1")).status_code == 404


async def test_only_the_highest_version_is_served_where_that_is_wanted(tmp_path: Path) -> None:
    write_scaled(tmp_path / "b/1/model.onnx", 3)
    write_scaled(tmp_path / "b/2/model.onnx", 4)
    async with stand(tmp_path, "--model-versions", "latest") as models:
        assert await models.factor("b") == 4
        assert (await models.ask("b/versions/1")).status_code == 404


async def test_a_model_that_cannot_be_loaded_stops_no_other_and_is_told_with_the_reason(tmp_path: Path) -> None:
    write_scaled(tmp_path / "good.onnx", 2)
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    async with stand(tmp_path) as models:
        assert await models.factor("good") == 2
        assert "ONNX Runtime cannot load it" in (await models.index())["bad", ""]
        assert await models.index(ready=True) == {("good", "1"): ""}
        refused = await models.ask("bad")
        assert refused.status_code == 503
        assert "ONNX Runtime cannot load it" in refused.text
        statuses = [await models.status(f"/v2/{path}/ready") for path in ("models/good", "models/bad", "health")]
        assert statuses == [200, 503, 503]


async def test_a_folder_without_models_is_none_to_be_served(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="has no model"):
        async with stand(tmp_path):
            pass
    with pytest.raises(StartupError, match="cannot be read"):
        async with stand(tmp_path / "nowhere"):
            pass
    async with stand(tmp_path, "--model-control=explicit") as models:
        assert await models.status("/v2/health/ready") == 200


async def test_clients_load_and_unload_nothing_unless_the_server_was_started_so(tmp_path: Path) -> None:
    write_scaled(tmp_path / "a.onnx", 2)
    async with stand(tmp_path) as models:
        for verb in ("load", "unload"):
            refused = await models.control("a", verb)
            assert refused.status_code == 400
            assert "--model-control=explicit" in refused.text
        assert await models.factor("a") == 2


async def test_models_are_loaded_replaced_and_unloaded(tmp_path: Path) -> None:
    write_scaled(tmp_path / "a/1/model.onnx", 2)
    write_scaled(tmp_path / "b.onnx", 3)
    async with stand(tmp_path, "--model-control=explicit", "--load-model", "b") as models:
        assert await models.index() == {("a", "1"): "unloaded", ("b", "1"): ""}
        assert (await models.ask("a")).status_code == 404
        assert await models.status("/v2/health/ready") == 200

        assert (await models.control("a", "load")).status_code == 200
        assert await models.factor("a") == 2

        write_scaled(tmp_path / "a/2/model.onnx", 5)
        assert (await models.control("a", "load")).status_code == 200
        assert [await models.factor(path) for path in ("a", "a/versions/1")] == [5, 2]

        (tmp_path / "a/3").mkdir()
        (tmp_path / "a/3/model.onnx").write_bytes(b"no model")
        refused = await models.control("a", "load")
        assert refused.status_code == 422
        assert "ONNX Runtime cannot load it" in refused.json()["error"]
        assert await models.factor("a") == 5
        assert await models.index() == {("a", "2"): "", ("a", "1"): "", ("b", "1"): ""}

        assert (await models.control("a", "unload")).status_code == 200
        unloaded = await models.ask("a")
        assert (unloaded.status_code, unloaded.json()) == (404, {"error": "model 'a' is not loaded: unloaded"})
        assert await models.index(ready=True) == {("b", "1"): ""}
        assert await models.status("/v2/health/ready") == 200


async def test_what_is_not_there_cannot_be_loaded_or_unloaded(tmp_path: Path) -> None:
    async with stand(tmp_path, "--model-control=explicit") as models:
        assert [(await models.control("a", verb)).status_code for verb in ("load", "unload")] == [404, 404]
        (tmp_path / "a.onnx").write_bytes(b"no model")
        assert (await models.control("a", "load")).status_code == 422
        assert "ONNX Runtime cannot load it" in (await models.index())["a", ""]
        assert await models.status("/v2/health/ready") == 200
        write_scaled(tmp_path / "a.onnx", 2)
        assert (await models.control("a", "load")).status_code == 200
        assert await models.factor("a") == 2


async def test_nothing_is_lost_while_models_come_and_go(tmp_path: Path) -> None:
    write_scaled(tmp_path / "a.onnx", 2)
    write_scaled(tmp_path / "other.onnx", 7)
    async with stand(tmp_path, *EXPLICIT) as models:
        over = asyncio.Event()

        async def keep_asking(name: str) -> set[float]:
            seen: set[float] = set()
            while not over.is_set():
                seen.add(await models.factor(name))
            return seen

        asking = [asyncio.create_task(keep_asking(name)) for name in ("a", "a", "other")]
        for factor in (3, 4, 5):
            write_scaled(tmp_path / "a.onnx", factor)
            loaded = await asyncio.gather(*(models.control("a", "load") for _ in range(3)))
            assert [answer.status_code for answer in loaded] == [200] * 3
            assert await models.factor("a") == factor
            await models.control("other", "load")
        over.set()
        seen = [await task for task in asking]
        assert seen[0] | seen[1] <= {2, 3, 4, 5}
        assert seen[2] == {7}


async def test_requests_in_flight_are_answered_by_the_model_they_asked(tmp_path: Path) -> None:
    write_looping(tmp_path / "slow.onnx", WIDTH * 2000)
    async with stand(tmp_path, *EXPLICIT, "--long-run-ms", "0") as models:
        asked = [asyncio.create_task(models.ask("slow")) for _ in range(3)]
        await until(lambda: models.service.served_as("slow").predictor.busy)
        write_scaled(tmp_path / "slow.onnx", 3)
        assert (await models.control("slow", "load")).status_code == 200
        assert await models.factor("slow") == 3
        assert (await models.control("slow", "unload")).status_code == 200
        for answer in await asyncio.gather(*asked):
            assert answer.json()["outputs"][0]["data"] == ROW


@pytest.mark.parametrize("verb", ["load", "unload"])
async def test_what_is_served_no_more_leaves_memory(tmp_path: Path, verb: str) -> None:
    write_scaled(tmp_path / "a.onnx", 2, ballast=100_000)
    async with stand(tmp_path, *EXPLICIT) as models:
        await models.factor("a")
        before = weakref.ref(models.service.served_as("a").predictor.session)
        assert (await models.control("a", verb)).status_code == 200
        await until(lambda: (gc.collect(), before() is None)[1], 60)


async def test_a_load_does_not_hold_up_the_event_loop(tmp_path: Path) -> None:
    write_looping(tmp_path / "slow.onnx", WIDTH * 500)
    write_scaled(tmp_path / "short.onnx", 2)
    async with stand(tmp_path, "--model-control=explicit", "--load-model", "short") as models:
        loading = asyncio.create_task(models.control("slow", "load"))
        answered = 0
        while not loading.done():
            await models.factor("short")
            answered += 1
        assert (await loading).status_code == 200
        assert answered > 5


async def test_an_overloaded_model_says_when_to_try_again_and_others_answer(tmp_path: Path) -> None:
    write_looping(tmp_path / "slow.onnx", WIDTH * 2000)
    write_scaled(tmp_path / "short.onnx", 2)
    bounds = ("--long-run-ms", "1", "--long-run-threads", "1", "--queue-deadline", "0.000001")
    async with stand(tmp_path, *bounds) as models:
        answers = await asyncio.gather(*(models.ask("slow") for _ in range(3)), models.ask("short"))
        assert sorted(answer.status_code for answer in answers[:3]) == [200, 429, 429]
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert int(refused.headers["retry-after"]) >= 1
        assert answers[3].status_code == 200
        labels = {"model": "slow", "variant": "", "reason": "overloaded"}
        assert models.registry.get_sample_value("fairlead_unrun_requests_total", labels) == 2


class _Reply:
    """Where an inference over gRPC is answered."""

    def __init__(self) -> None:
        self.over: str | None = None
        self.told: asyncio.Future[bytes | RequestError] = asyncio.get_running_loop().create_future()

    def answer(self, message: bytes, _token: str | None) -> bool:
        self.told.set_result(message)
        return True

    def gone(self) -> bool:
        return self.over is not None

    def fail(self, error: RequestError) -> None:
        self.told.set_result(error)


async def test_a_call_that_is_cancelled_while_it_waits_is_not_run(tmp_path: Path) -> None:
    write_looping(tmp_path / "slow.onnx", WIDTH * 2000)
    async with stand(tmp_path, "--long-run-ms", "0", "--long-run-threads", "1") as models:
        message = pb.ModelInferRequest(model_name="slow")
        message.inputs.add(name="x", datatype="FP32", shape=[1, WIDTH]).contents.fp32_contents.extend(ROW)
        methods = InferenceMethods(models.service)
        first, second = _Reply(), _Reply()
        for reply in (first, second):
            methods.infer(message.SerializeToString(), None, None, reply)
        second.over = "CANCELLED"
        answer, refusal = await first.told, await second.told
        assert isinstance(answer, bytes)
        assert list(pb.ModelInferResponse.FromString(answer).outputs[0].contents.fp32_contents) == ROW
        assert isinstance(refusal, ClientLeft)
        labels = {"model": "slow", "variant": "", "reason": "gone"}
        assert models.registry.get_sample_value("fairlead_unrun_requests_total", labels) == 1


async def test_a_reason_names_the_model_once() -> None:
    error = LoadRefused("a", "it is no model")
    assert str(error) == "model 'a' cannot be loaded: it is no model"
    assert error.reason == "it is no model"
    assert not isinstance(error, UnknownModel)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model-repository", "d", "--model", "m.onnx"], "not allowed with argument"),
        (["--model-repository", "d", "--model-name", "x"], "--model-name goes with --model"),
        (["--model", "m.onnx", "--model-control", "explicit"], "goes with --model-repository"),
        (["--model-repository", "d", "--load-model", "x"], "goes with --model-control=explicit"),
        (["--model-repository", "d", "--long-run-ms", "-1"], "no time"),
        (["--model-repository", "d", "--long-run-threads", "x"], "no number"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        from_arguments(arguments)
    assert message in capsys.readouterr().err
