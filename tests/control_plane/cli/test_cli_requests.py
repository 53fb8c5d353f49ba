"""Commands that decide about a rollout in a cluster: they annotate the ModelDeployment, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fairlead_operator.api.v1alpha1 import PAUSED_ANNOTATION, REQUEST_ANNOTATION
from fairlead_operator.core.record import Record, Run, State, dumped
from support.commands import commands_of
from support.kube import KubeApiServer
from support.operators import CRD

NAME, NAMESPACE = "arrival-delay", "flights"
RUN = f"{NAMESPACE}/{NAME}/e1"


def resource() -> dict[str, Any]:
    def variant(name: str, role: str) -> dict[str, Any]:
        return {"name": name, "role": role, "model": {"uri": f"s3://m/{name}.onnx", "digest": "sha256:" + "a" * 64}}

    return {
        "apiVersion": "serving.fairlead.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "annotations": {"theirs": "stays"}},
        "spec": {
            "featureStore": {"configMapRef": {"name": "feast-client"}},
            "variants": [variant("logistic", "Control"), variant("boosted", "Treatment")],
            "routing": {"unit": {"header": "x-unit-id"}},
            "rollout": {"strategy": "Experiment", "steps": [{"weights": {"boosted": 10}}]},
            "experiment": {"id": "e1"},
        },
    }


async def call(folder: Path, server: KubeApiServer, *arguments: str) -> tuple[int, str]:
    """Run a command beside the server; return its exit code and what it said."""
    done = await commands_of(server, folder).run(*arguments, "--namespace", NAMESPACE)
    return done.code, done.out + done.err


def found(server: KubeApiServer) -> dict[str, str]:
    deployment = server.get("ModelDeployment", NAMESPACE, NAME)
    assert deployment
    return dict(deployment["metadata"]["annotations"])


async def test_commands_annotate_the_deployment_and_refuse_what_does_not_apply(tmp_path: Path) -> None:
    async with KubeApiServer(kinds=[], namespaces=[NAMESPACE]) as server:
        server.load(CRD)
        assert await call(tmp_path, server, "pause", NAME) == (
            1,
            f"error: no ModelDeployment {NAMESPACE}/{NAME} in this cluster; `kubectl get mdep -A` lists them\n",
        )
        server.create(resource())
        code, said = await call(tmp_path, server, "promote", NAME)
        assert (code, "no rollout is under way" in said) == (1, True)

        run = Run(RUN, State.RAMPING, started_s=0.0, since_s=0.0, in_force=True)
        server.create(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": f"{NAME}-rollout", "namespace": NAMESPACE},
                "data": {"rollout.json": dumped(Record("0.1.0", run=run))},
            }
        )
        for command, wanted in (
            (["pause", NAME], {PAUSED_ANNOTATION: "true"}),
            (["promote", NAME], {PAUSED_ANNOTATION: "true", REQUEST_ANNOTATION: f"promote boosted {RUN}"}),
            (["resume", NAME], {REQUEST_ANNOTATION: f"promote boosted {RUN}"}),
            (["abort", NAME], {REQUEST_ANNOTATION: f"abort {RUN}"}),
        ):
            code, said = await call(tmp_path, server, *command)
            assert code == 0, said
            assert found(server) == {"theirs": "stays", **wanted}
