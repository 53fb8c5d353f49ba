"""The ledger in the chart: its keys, its database and when its tables are migrated, what the operator is told of it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from fairlead.feedback.keys import KeyRing
from fairlead_ledger.access import KeyedAccess, Role
from fairlead_ledger.settings import from_arguments
from support.charts import Manifest, Values, component_of, notes, one, operator_of, rendered, scenarios

BUNDLED = scenarios("fairlead")["08-ledger-bundled"]
OWN = scenarios("fairlead")["07-ledger"]


def container(values: Values = BUNDLED, name: str = "fairlead-ledger") -> Manifest:
    pod = one(rendered("fairlead", values), "Deployment", name)["spec"]["template"]["spec"]
    return dict(pod["containers"][0])


def mounted(pod: Manifest) -> dict[str, str]:
    """Return the files that a pod gets from Secrets: ``NAME/KEY`` of each, by its path."""
    paths = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    secrets = [volume for volume in pod["volumes"] if "secret" in volume]
    return {
        f"{paths[volume['name']]}/{item['path']}": f"{volume['secret']['secretName']}/{item['key']}"
        for volume in secrets
        for item in volume["secret"]["items"]
    }


def test_an_install_without_values_has_neither_ledger_nor_database() -> None:
    assert {component_of(manifest) for manifest in rendered("fairlead")} == {"operator", "test", "users"}
    said = notes("fairlead")
    assert "--set ledger.enabled=true --set postgres.enabled=true" in said
    assert "No experiment can be judged" not in notes("fairlead", BUNDLED)


def test_the_ledger_takes_its_arguments() -> None:
    pod = one(rendered("fairlead", OWN), "Deployment", "fairlead-ledger")["spec"]["template"]["spec"]
    found = from_arguments("postgresql://ledger@db/ledger", pod["containers"][0]["args"])
    assert (found.command, found.port) == ("serve", 8080)
    assert found.retention_s == 30 * 86400
    files = mounted(pod)
    assert files[str(found.keys)] == "fairlead-ledger-keys/keys.json"
    assert files[str(found.api_keys)] == "fairlead-ledger-api-keys/api-keys.json"
    job = one(rendered("fairlead", OWN), "Job")["spec"]["template"]["spec"]["containers"][0]
    migration = from_arguments("postgresql://ledger@db/ledger", job["args"])
    assert (migration.command, migration.wait_s) == ("migrate", 60)


def test_ledger_and_servers_are_told_of_the_same_brokers_and_topic() -> None:
    objects = rendered("fairlead", OWN)
    pod = one(objects, "Deployment", "fairlead-ledger")["spec"]["template"]["spec"]
    found = from_arguments("postgresql://ledger@db/ledger", pod["containers"][0]["args"])
    assert mounted(pod)[str(found.kafka_config)] == "kafka-clients/ledger"
    assert pod["terminationGracePeriodSeconds"] == 60
    operator = operator_of(objects)["spec"]["template"]["spec"]
    told = {one["name"]: one.get("value") for one in operator["containers"][0]["env"]}
    assert told["FAIRLEAD_OPERATOR_KAFKA_BOOTSTRAP_SERVERS"] == found.kafka_bootstrap_servers
    assert told["FAIRLEAD_OPERATOR_KAFKA_EXPOSURES_TOPIC"] == found.kafka_exposures_topic == "fairlead.exposures"
    assert mounted(operator)[str(told["FAIRLEAD_OPERATOR_KAFKA_CONFIG"])] == "kafka-clients/server"


def test_without_brokers_or_for_servers_over_http_nothing_is_said_of_kafka() -> None:
    values = {**BUNDLED, "ledger": {"enabled": True, "kafka": {"bootstrapServers": "kafka:9092", "servers": False}}}
    assert "KAFKA" not in str(operator_of(rendered("fairlead", values)))
    assert "--kafka-bootstrap-servers=kafka:9092" in container(values)["args"]
    assert "--kafka" not in str(container(BUNDLED))


def test_no_password_is_in_a_pod() -> None:
    for values, secret in ((BUNDLED, "fairlead-postgres"), (OWN, "ledger-database")):
        (variable,) = container(values)["env"]
        assert variable == {
            "name": "FAIRLEAD_LEDGER_DATABASE",
            "valueFrom": {"secretKeyRef": {"name": secret, "key": "url"}},
        }
    told = json.dumps([m for m in rendered("fairlead", BUNDLED) if m["kind"] != "Secret"])
    assert "postgresql://" not in told


def test_tables_of_a_database_of_ones_own_are_migrated_before_anything_else() -> None:
    job = one(rendered("fairlead", OWN), "Job", "fairlead-ledger-migrations")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert not one(rendered("fairlead", OWN), "Deployment", "fairlead-ledger")["spec"]["template"]["spec"].get(
        "initContainers"
    )


def test_tables_of_the_bundled_database_are_migrated_by_each_pod() -> None:
    objects = rendered("fairlead", BUNDLED)
    assert not [m for m in objects if m["kind"] == "Job"], "a hook would run before the database is there"
    pod = one(objects, "Deployment", "fairlead-ledger")["spec"]["template"]["spec"]
    (first,) = pod["initContainers"]
    assert (first["args"], first["env"]) == (["migrate", "--wait=60"], pod["containers"][0]["env"])


def test_a_database_of_ones_own_wins_over_the_bundled_one() -> None:
    values = {**OWN, "postgres": {"enabled": True}}
    assert container(values)["env"] == container(OWN)["env"]
    assert one(rendered("fairlead", values), "Job")


def test_the_bundled_database_is_found_where_it_says() -> None:
    objects = rendered("fairlead", BUNDLED)
    secret = one(objects, "Secret", "fairlead-postgres")["stringData"]
    assert (
        secret["url"] == f"postgresql://ledger:{secret['password']}@fairlead-postgres.fairlead-system.svc:5432/ledger"
    )
    assert one(objects, "Service", "fairlead-postgres")["spec"]["ports"][0]["port"] == 5432


def test_data_outlive_pods_and_the_release_unless_that_is_not_wanted() -> None:
    kept = one(rendered("fairlead", BUNDLED), "StatefulSet")["spec"]
    assert kept["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert [claim["metadata"]["name"] for claim in kept["volumeClaimTemplates"]] == ["data"]
    storage = {"persistent": False, "size": "1Gi"}
    lost = one(rendered("fairlead", {**BUNDLED, "postgres": {"enabled": True, "storage": storage}}), "StatefulSet")
    assert {"name": "data", "emptyDir": {"sizeLimit": "1Gi"}} in lost["spec"]["template"]["spec"]["volumes"]
    assert "volumeClaimTemplates" not in lost["spec"]
    said = notes("fairlead", {**BUNDLED, "postgres": {"enabled": True, "storage": storage}})
    assert "ALL IS LOST WITH THE POD" in said


def test_keys_are_random_are_kept_and_are_a_ring() -> None:
    rings = [one(rendered("fairlead", BUNDLED), "Secret", "fairlead-ledger-keys") for _ in range(2)]
    loaded = [KeyRing.loaded(ring["stringData"]["keys.json"]) for ring in rings]
    assert loaded[0] != loaded[1]
    assert [(len(ring.units), len(ring.signing[0].secret)) for ring in loaded] == [(32, 32)] * 2
    for name in ("fairlead-ledger-keys", "fairlead-ledger-api-keys", "fairlead-postgres"):
        secret = one(rendered("fairlead", BUNDLED), "Secret", name)
        assert secret["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_api_keys_open_to_operator_servers_and_whoever_is_named(tmp_path: Any) -> None:
    secret = one(rendered("fairlead", OWN), "Secret", "fairlead-ledger-api-keys")["stringData"]
    (tmp_path / "api-keys.json").write_text(secret["api-keys.json"])
    access = KeyedAccess(tmp_path / "api-keys.json")

    def roles(token: str) -> set[Role]:
        return set(access.caller({"authorization": f"Bearer {token}"}).roles)

    assert roles(secret["operator"]) == {Role.OPERATOR}
    assert roles(secret["server"]) == {Role.SERVER}
    assert roles("booking.test") == {Role.APPLICATION}
    assert hashlib.sha256(b"test").hexdigest() in secret["api-keys.json"]
    assert secret["operator"].partition(".")[2] not in secret["api-keys.json"]


def test_secrets_of_ones_own_are_taken_as_they_are() -> None:
    values = {**BUNDLED, "ledger": {"enabled": True, "keys": {"secretName": "ring"}, "apiKeys": {"secretName": "keys"}}}
    objects = rendered("fairlead", values)
    assert {m["metadata"]["name"] for m in objects if m["kind"] == "Secret"} == {"fairlead-postgres"}
    for name in ("fairlead-ledger", "fairlead-operator"):
        files = mounted(one(objects, "Deployment", name)["spec"]["template"]["spec"])
        assert {place.partition("/")[0] for place in files.values()} == {"ring", "keys"}


def test_the_operator_is_told_where_the_ledger_is_and_what_opens_it() -> None:
    pod = operator_of(rendered("fairlead", BUNDLED))["spec"]["template"]["spec"]
    told = {one["name"]: one.get("value", "") for one in pod["containers"][0]["env"]}
    assert told["FAIRLEAD_OPERATOR_LEDGER_URL"] == "http://fairlead-ledger.fairlead-system.svc:8080"
    files = mounted(pod)
    assert files[told["FAIRLEAD_OPERATOR_LEDGER_API_KEY"]] == "fairlead-ledger-api-keys/operator"
    assert files[told["FAIRLEAD_OPERATOR_LEDGER_SERVER_KEY"]] == "fairlead-ledger-api-keys/server"
    assert files[told["FAIRLEAD_OPERATOR_FEEDBACK_KEYS"]] == "fairlead-ledger-keys/keys.json"
    without = operator_of(rendered("fairlead"))["spec"]["template"]["spec"]
    assert (
        not told.keys()
        - {one["name"] for one in without["containers"][0]["env"]}
        - {
            *(
                f"FAIRLEAD_OPERATOR_{name}"
                for name in ("LEDGER_URL", "LEDGER_API_KEY", "LEDGER_SERVER_KEY", "FEEDBACK_KEYS")
            )
        }
    )
    assert not mounted(without)


def test_a_ledger_elsewhere_is_named_with_its_secrets() -> None:
    ledger = {"keys": {"secretName": "ring"}, "apiKeys": {"secretName": "keys"}}
    values = {"ledger": ledger, "operator": {"settings": {"ledgerUrl": "https://ledger.example.org"}}}
    objects = rendered("fairlead", values)
    pod = operator_of(objects)["spec"]["template"]["spec"]
    told = {one["name"]: one.get("value", "") for one in pod["containers"][0]["env"]}
    assert told["FAIRLEAD_OPERATOR_LEDGER_URL"] == "https://ledger.example.org"
    assert {place.partition("/")[0] for place in mounted(pod).values()} == {"ring", "keys"}
    assert not [m for m in objects if component_of(m) == "ledger"]


@pytest.mark.parametrize(
    ("chosen", "kinds"),
    [
        ({}, set()),
        ({"replicas": 2}, {"PodDisruptionBudget"}),
        ({"autoscaling": {"enabled": True}}, {"PodDisruptionBudget", "HorizontalPodAutoscaler"}),
        ({"replicas": 3, "autoscaling": {"enabled": True, "minReplicas": 1}}, {"HorizontalPodAutoscaler"}),
        ({"replicas": 2, "podDisruptionBudget": {"enabled": False}}, set()),
    ],
)
def test_several_ledgers_have_a_budget_and_an_autoscaler_counts_them_alone(chosen: Values, kinds: set[str]) -> None:
    objects = rendered("fairlead", {**BUNDLED, "ledger": {"enabled": True, **chosen}})
    wanted = {"PodDisruptionBudget", "HorizontalPodAutoscaler"}
    assert {m["kind"] for m in objects if m["kind"] in wanted} == kinds
    deployment = one(objects, "Deployment", "fairlead-ledger")["spec"]
    assert ("replicas" in deployment) == ("HorizontalPodAutoscaler" not in kinds)
    for found in (m["spec"] for m in objects if m["kind"] == "PodDisruptionBudget"):
        assert found["selector"]["matchLabels"].items() <= deployment["template"]["metadata"]["labels"].items()
