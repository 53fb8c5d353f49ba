"""A model is served only if its file, its contract, its graph and the registry agree; else the message says what."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from feast import FeatureService, FeatureView
from onnx import helper
from prometheus_client import CollectorRegistry

from fairlead.clock import SystemClock
from fairlead.contract import METADATA_KEY, Contract, sha256
from fairlead.policy import Action, Hydration
from fairlead_server.errors import ContractMismatch, InvalidRequest, ModelFileError, StartupError
from fairlead_server.metrics import ServerMetrics
from fairlead_server.predict.load import load
from fairlead_server.predict.offline import NoOfflineStoreConfig
from fairlead_server.predict.predictor import Predictor
from fairlead_server.predict.request import PredictRequest
from fairlead_server.predict.settings import PredictorSettings
from fairlead_server.predict.store import open_store
from support.models import expected_probability, write_model
from support.predictors import contract_for, hydrated, running
from support.store import FeatureRepo, definitions, make_repo


@pytest.fixture
def repo(tmp_path: Path) -> FeatureRepo:
    return make_repo(tmp_path / "repo")


async def _load(model: Path, repo: Path, **settings: Any) -> Predictor:
    wanted = PredictorSettings(model=model, feature_store=repo, **settings)
    return await load(wanted, clock=SystemClock(), metrics=ServerMetrics(CollectorRegistry()))


def _full_inputs(contract: Contract, rows: int) -> dict[str, Any]:
    draw = np.random.default_rng(7)
    made: dict[str, Callable[[], Any]] = {
        "float32": lambda: draw.normal(size=rows).astype(np.float32),
        "float64": lambda: draw.normal(size=rows),
        "int64": lambda: draw.integers(-5, 5, rows),
        "bool": lambda: draw.integers(0, 2, rows).astype(np.bool_),
        "string": lambda: np.array([f"maker {i}" for i in range(rows)], np.object_),
    }
    return {name: made[dtype]() for name, dtype in contract.tensor_inputs.items()}


@pytest.mark.parametrize("rows", [1, 2, 64, 65, 500])
async def test_a_full_request_is_answered_by_the_graph_alone(repo: FeatureRepo, tmp_path: Path, rows: int) -> None:
    contract = contract_for(repo)
    async with running(repo.path, contract, tmp_path) as rig:
        inputs = _full_inputs(contract, rows)
        answer = await rig.predictor.predict(PredictRequest(inputs, rows), rig.predictor.metrics.timer())
        assert np.allclose(
            answer.outputs["probability_late"].tolist(), expected_probability(contract, inputs).tolist(), atol=1e-6
        )
        assert answer.outputs["probability_late"].shape == (rows,)
        assert answer.outputs["seen_plane__maker"].tolist() == inputs["plane__maker"].tolist()
        assert answer.states is None
        assert not answer.degraded


async def test_inputs_are_bound_by_name_in_whatever_order_they_come(repo: FeatureRepo, tmp_path: Path) -> None:
    contract = contract_for(repo)
    async with running(repo.path, contract, tmp_path) as rig:
        inputs = _full_inputs(contract, 3)
        backwards = dict(reversed(inputs.items()))
        one = await rig.predictor.predict(PredictRequest(inputs, 3), rig.predictor.metrics.timer())
        other = await rig.predictor.predict(PredictRequest(backwards, 3), rig.predictor.metrics.timer())
        assert one.outputs["probability_late"].tolist() == other.outputs["probability_late"].tolist()


async def test_a_predictor_says_what_it_is(repo: FeatureRepo, tmp_path: Path) -> None:
    contract = contract_for(repo)
    digest = write_model(tmp_path / "model.onnx", contract)
    predictor = await _load(tmp_path / "model.onnx", repo.yaml, model_digest=digest, model_name="late", revision="r1")
    assert predictor.model_name == "late"
    assert predictor.model_digest == digest
    assert predictor.revision == "r1"
    assert predictor.fingerprints.contract == predictor.fingerprints.registry == contract.fingerprint
    assert predictor.ready
    assert not predictor.degraded
    assert predictor.not_ready_reason is None
    await predictor.close()


async def test_states_are_reported_only_when_asked_for(repo: FeatureRepo, tmp_path: Path) -> None:
    async with running(repo.path, contract_for(repo), tmp_path) as rig:
        request = hydrated({})
        silent = PredictRequest(request.inputs, request.rows)
        assert (await rig.predictor.predict(silent, rig.predictor.metrics.timer())).states is None
        assert (await rig.predictor.predict(request, rig.predictor.metrics.timer())).states is not None


async def test_every_stage_is_timed(repo: FeatureRepo, tmp_path: Path) -> None:
    async with running(repo.path, contract_for(repo), tmp_path) as rig:
        await rig.ask({})
        assert rig.count("fairlead_stage_seconds_count", stage="hydrate") == 1
        assert rig.count("fairlead_stage_seconds_count", stage="infer") == 1


async def test_a_request_that_does_not_fit_is_refused(repo: FeatureRepo, tmp_path: Path) -> None:
    async with running(repo.path, contract_for(repo), tmp_path) as rig:
        with pytest.raises(InvalidRequest, match="tailnum is empty"):
            await rig.ask({"tailnum": ""})


async def test_a_contract_model_without_a_feature_store_takes_full_requests_only(
    repo: FeatureRepo, tmp_path: Path
) -> None:
    contract = contract_for(repo)
    write_model(tmp_path / "model.onnx", contract)
    wanted = PredictorSettings(model=tmp_path / "model.onnx")
    predictor = await load(wanted, clock=SystemClock(), metrics=ServerMetrics(CollectorRegistry()))
    keys = hydrated({})
    with pytest.raises(InvalidRequest, match="this server has no feature store, and takes full requests only: send "):
        await predictor.predict(keys, predictor.metrics.timer())
    full = PredictRequest(_full_inputs(contract, 1), 1)
    answer = await predictor.predict(full, predictor.metrics.timer())
    assert answer.outputs["probability_late"].shape == (1,)
    await predictor.close()


async def test_a_missing_file_is_named(repo: FeatureRepo, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"none\.onnx: cannot be read: No such file or directory; check --model"):
        await _load(tmp_path / "none.onnx", repo.path)


async def test_another_digest_is_refused_naming_both(repo: FeatureRepo, tmp_path: Path) -> None:
    digest = write_model(tmp_path / "model.onnx", contract_for(repo))
    expected = sha256(b"another")
    with pytest.raises(ModelFileError, match=rf"model\.onnx: digest is {digest}, expected {expected}"):
        await _load(tmp_path / "model.onnx", repo.path, model_digest=expected)


async def test_a_file_that_is_not_onnx_is_refused(repo: FeatureRepo, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelFileError, match=r"model\.onnx: ONNX Runtime cannot load it"):
        await _load(tmp_path / "model.onnx", repo.path)


async def test_a_model_without_contract_is_refused(repo: FeatureRepo, tmp_path: Path) -> None:
    write_model(tmp_path / "model.onnx", contract_for(repo), with_contract=False)
    with pytest.raises(ModelFileError, match="no contract in the model's metadata"):
        await _load(tmp_path / "model.onnx", repo.path)


def _rewrite(path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)


def _retype_input(model: onnx.ModelProto) -> None:
    contract = Contract.from_metadata({p.key: p.value for p in model.metadata_props}, "model")
    features = tuple(f.model_copy(update={"dtype": "int32"}) if f.name == "jet" else f for f in contract.features)
    helper.set_model_props(model, {METADATA_KEY: contract.model_copy(update={"features": features}).to_json()})


def _rename_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = model.graph.node[-1 - len(model.graph.output) + 1].output[0] = "other"


def _drop_input(model: onnx.ModelProto) -> None:
    contract = Contract.from_metadata({p.key: p.value for p in model.metadata_props}, "model")
    smaller = contract.model_copy(update={"features": contract.features[1:]})
    helper.set_model_props(model, {METADATA_KEY: smaller.to_json()})


def _add_input(model: onnx.ModelProto) -> None:
    contract = Contract.from_metadata({p.key: p.value for p in model.metadata_props}, "model")
    more = contract.features[0].model_copy(update={"name": "humidity"})
    larger = contract.model_copy(update={"features": (*contract.features, more)})
    helper.set_model_props(model, {METADATA_KEY: larger.to_json()})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_retype_input, r"input plane__jet is tensor\(bool\) in the graph, int32 in the contract"),
        (_rename_output, r"the graph has no output probability_late that the contract names"),
        (_drop_input, r"the contract does not know the graph's input origin_weather__temp"),
        (_add_input, r"the graph has no input origin_weather__humidity that the contract names"),
    ],
)
async def test_a_graph_that_is_not_the_contracts_is_refused(
    repo: FeatureRepo, tmp_path: Path, change: Callable[[onnx.ModelProto], None], says: str
) -> None:
    write_model(tmp_path / "model.onnx", contract_for(repo))
    _rewrite(tmp_path / "model.onnx", change)
    with pytest.raises(ModelFileError, match=says):
        await _load(tmp_path / "model.onnx", repo.path)


def _features(view: FeatureView, *names: str) -> FeatureView:
    return view[list(names)]


def _swapped(objects: list[Any]) -> list[Any]:
    weather, *others = objects[3:-1]
    return [*objects[:-1], FeatureService(name="small", features=[_features(weather, "wind", "temp"), *others])]


def _lost(objects: list[Any]) -> list[Any]:
    weather, *others = objects[3:-1]
    return [*objects[:-1], FeatureService(name="small", features=[_features(weather, "temp"), *others])]


def _renamed(objects: list[Any]) -> list[Any]:
    objects[3].schema[1].name = objects[3].features[0].name = "temperature"
    return [*objects[:-1], FeatureService(name="small", features=objects[3:-1])]


def _retyped(objects: list[Any]) -> list[Any]:
    objects[3].features[1].dtype = objects[3].features[0].dtype
    return [*objects[:-1], FeatureService(name="small", features=objects[3:-1])]


def _widened(objects: list[Any]) -> list[Any]:
    """Packagers narrow numbers to float32, so a contract cannot tell which of the two it was."""
    objects[3].features[0].dtype = objects[3].features[1].dtype
    return [*objects[:-1], FeatureService(name="small", features=objects[3:-1])]


def _expiring_sooner(objects: list[Any]) -> list[Any]:
    objects[3].ttl /= 3
    return objects


def _rewritten(objects: list[Any]) -> list[Any]:
    transformation = objects[-2].feature_transformation
    transformation.udf_string = transformation.udf_string.replace("17", "18")
    return objects


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_swapped, "feature origin_weather__wind is registered where the contract has origin_weather__temp"),
        (_lost, "feature origin_weather__wind is not registered"),
        (_renamed, "feature origin_weather__temp is not registered"),
        (_retyped, "feature origin_weather__wind is registered with dtype float32, the contract says float64"),
        (_widened, "one of these changed: type of origin_weather__temp (float64), source text of on-demand"),
        (_expiring_sooner, "feature origin_weather__temp is registered with ttl_s 3600.0, the contract says 10800.0"),
        (_rewritten, "one of these changed: source text of on-demand view departure"),
    ],
)
async def test_a_registry_that_moved_on_is_a_mismatch_naming_the_feature(
    repo: FeatureRepo, tmp_path: Path, change: Callable[[list[Any]], list[Any]], says: str
) -> None:
    contract = contract_for(repo)
    make_repo(tmp_path / "changed", apply=False).store.apply(change(definitions(tmp_path / "changed")))
    with pytest.raises(ContractMismatch, match=re.escape(says)):
        async with running(tmp_path / "changed", contract, tmp_path):
            pass


async def test_a_policy_that_leaves_a_type_without_a_value_is_refused_naming_the_feature(
    repo: FeatureRepo, tmp_path: Path
) -> None:
    nulls = Hydration(on_missing=Action.NULL)
    with pytest.raises(ContractMismatch, match="feature plane__seats is int64, which has no missing value"):
        async with running(repo.path, contract_for(repo), tmp_path, hydration=nulls):
            pass


async def test_an_age_for_a_view_that_the_model_does_not_read_is_warned_of_once_naming_both(
    repo: FeatureRepo, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ages = Hydration(max_age_s={"plane": 60.0, "planes": 60.0, "departure": 60.0})
    async with running(repo.path, contract_for(repo), tmp_path, hydration=ages):
        warned = [record.getMessage() for record in caplog.records if "max_age_s" in record.message]
    views = "origin_weather,pair_performance,plane,tail_performance"
    assert warned == [
        f"hydration.max_age_s names views that the model does not read unknown=departure,planes views={views}"
    ]


async def test_an_age_for_a_view_that_the_model_reads_is_not_warned_of(
    repo: FeatureRepo, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(repo.path, contract_for(repo), tmp_path, hydration=Hydration(max_age_s={"plane": 60.0})):
        assert "max_age_s" not in caplog.text


async def test_a_missing_or_broken_feature_store_yaml_is_named(repo: FeatureRepo, tmp_path: Path) -> None:
    write_model(tmp_path / "model.onnx", contract_for(repo))
    with pytest.raises(StartupError, match=r"feature_store\.yaml: no such file; check --feature-store"):
        await _load(tmp_path / "model.onnx", tmp_path)
    (tmp_path / "feature_store.yaml").write_text("project: 1\nonline_store: {type: nothing}\n")
    with pytest.raises(StartupError, match=r"feature_store\.yaml: not a valid feature store configuration"):
        await _load(tmp_path / "model.onnx", tmp_path)


@pytest.mark.parametrize("kind", ["bigquery", "duckdb", "remote", "of_nobody.AnyOfflineStore"])
def test_a_server_needs_no_client_of_the_store_that_training_reads(
    repo: FeatureRepo, tmp_path: Path, kind: str
) -> None:
    given = (repo.path / "feature_store.yaml").read_text()
    settings = yaml.safe_load(given) | {"offline_store": {"type": kind, "host": "warehouse"}}
    (tmp_path / "feature_store.yaml").write_text(yaml.safe_dump(settings))
    store = open_store(tmp_path)
    assert isinstance(store.config.offline_store, NoOfflineStoreConfig)
