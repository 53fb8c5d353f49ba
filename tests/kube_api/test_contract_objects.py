"""Objects come, change and go by the same rules in memory as on a real kube-apiserver."""

from __future__ import annotations

import pytest

from support.kube.contract import GROUP, Api, config_map, named, probe
from support.kube.store import Object

FINALIZER = f"{GROUP}/hold"
ELSEWHERE = "11111111-1111-1111-1111-111111111111"


async def test_a_created_object_has_what_the_server_gives_it(api: Api) -> None:
    made = await api.create(probe("a", mode="Fast"))

    assert made.code == 201
    assert made.metadata["generation"] == 1
    assert made.metadata["namespace"] == api.namespace
    assert {"uid", "resourceVersion", "creationTimestamp"} <= made.metadata.keys()
    assert (await api.get(probe("a"))).body == made.body


async def test_a_name_can_be_generated(api: Api) -> None:
    value = config_map("") | {"metadata": {"generateName": "run-"}}
    first, second = await api.create(value), await api.create(value)
    assert first.metadata["name"].startswith("run-")
    assert first.metadata["name"] != second.metadata["name"]


async def test_a_taken_name_is_refused(api: Api) -> None:
    await api.create(config_map("a"))
    refused = await api.create(config_map("a"))
    assert (refused.code, refused.body["reason"]) == (409, "AlreadyExists")
    assert refused.body["message"] == 'configmaps "a" already exists'
    assert refused.body["details"] == {"name": "a", "kind": "configmaps"}


async def test_what_is_not_there_is_not_found(api: Api) -> None:
    for reply in (await api.get(probe("no")), await api.delete(probe("no")), await api.merge(probe("no"), {})):
        assert (reply.code, reply.body["reason"]) == (404, "NotFound")
        assert reply.body["message"] == f'probes.{GROUP} "no" not found'
        assert reply.body["details"] == {"name": "no", "group": GROUP, "kind": "probes"}


async def test_an_unknown_group_is_a_plain_404_and_an_unknown_resource_a_status(api: Api) -> None:
    nothing = await api.call("GET", "/apis/nothing.example.org/v1/things")
    assert (nothing.code, nothing.body) == (404, {"text": "404 page not found\n"})
    unknown = await api.call("GET", "/api/v1/things")
    assert (unknown.code, unknown.body["reason"]) == (404, "NotFound")


async def test_a_namespace_must_exist(api: Api) -> None:
    refused = await api.call("POST", "/api/v1/namespaces/no-such-place/configmaps", config_map("a"))
    assert (refused.code, refused.body["message"]) == (404, 'namespaces "no-such-place" not found')


@pytest.mark.parametrize(
    ("value", "causes"),
    [
        (config_map("Not_A_Name"), [("FieldValueInvalid", "metadata.name")]),
        (config_map("a" * 254), [("FieldValueInvalid", "metadata.name")]),
        (named(config_map("a"), labels={"ok": "a" * 64}), [("FieldValueInvalid", "metadata.labels")]),
        (named(config_map("a"), labels={"not ok": "a"}), [("FieldValueInvalid", "metadata.labels")]),
        (named(config_map("a"), labels={"x.y/ok": "-a"}), [("FieldValueInvalid", "metadata.labels")]),
        (named(config_map("a"), finalizers=["bare"]), [("FieldValueInvalid", "metadata.finalizers[0]")]),
        (
            named(config_map("a"), ownerReferences=[{"apiVersion": "v1", "kind": "Pod", "name": "x"}]),
            [("FieldValueInvalid", "metadata.ownerReferences.uid")],
        ),
        (config_map("") | {"metadata": {}}, [("FieldValueRequired", "metadata.name")]),
        (
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "1st"},
                "spec": {"ports": [{"port": 80}]},
            },
            [("FieldValueInvalid", "metadata.name")],
        ),
    ],
)
async def test_bad_metadata_is_invalid(api: Api, value: Object, causes: list[tuple[str, str]]) -> None:
    refused = await api.create(value)
    assert (refused.code, refused.body["reason"], refused.causes) == (422, "Invalid", causes)


async def test_a_finalizer_of_a_custom_kind_needs_no_domain(api: Api) -> None:
    assert (await api.create(named(probe("a"), finalizers=["probe.finalizers"]))).code == 201
    await api.merge(probe("a"), {"metadata": {"finalizers": None}})


async def test_an_update_of_an_old_version_conflicts(api: Api) -> None:
    first = await api.create(config_map("a", x="1"))
    await api.update(first.body | {"data": {"x": "2"}})
    refused = await api.update(first.body | {"data": {"x": "3"}})
    assert (refused.code, refused.body["reason"]) == (409, "Conflict")
    assert "the object has been modified" in refused.body["message"]


async def test_an_update_without_a_version_is_taken_for_a_built_in_kind_alone(api: Api) -> None:
    await api.create(config_map("a", x="1"))
    assert (await api.update(config_map("a", x="2"))).body["data"] == {"x": "2"}
    await api.create(probe("a"))
    refused = await api.update(probe("a", mode="Safe"))
    assert (refused.code, refused.causes) == (422, [("FieldValueInvalid", "metadata.resourceVersion")])


async def test_an_update_of_another_uid_conflicts(api: Api) -> None:
    await api.create(config_map("a"))
    refused = await api.update(named(config_map("a"), uid=ELSEWHERE))
    assert (refused.code, refused.body["reason"]) == (409, "Conflict")


async def test_a_write_that_changes_nothing_keeps_the_version(api: Api) -> None:
    made = await api.create(config_map("a", x="1"))
    assert (await api.merge(config_map("a"), {"data": {"x": "1"}})).revision == made.revision
    assert (await api.update(made.body)).revision == made.revision
    assert (await api.merge(config_map("a"), {"data": {"x": "2"}})).revision != made.revision


async def test_the_servers_own_fields_cannot_be_written(api: Api) -> None:
    made = await api.create(probe("a"))
    patched = await api.merge(
        probe("a"), {"metadata": {"generation": 7, "creationTimestamp": "2001-01-01T00:00:00Z", "labels": {"a": "b"}}}
    )
    assert patched.metadata["labels"] == {"a": "b"}
    for name in ("generation", "creationTimestamp", "uid"):
        assert patched.metadata[name] == made.metadata[name]


async def test_the_generation_counts_changes_of_spec_alone(api: Api) -> None:
    await api.create(probe("a"))
    assert (await api.merge(probe("a"), {"metadata": {"labels": {"a": "b"}}})).metadata["generation"] == 1
    assert (await api.merge(probe("a"), {"status": {"phase": "Ready"}}, "status")).metadata["generation"] == 1
    assert (await api.merge(probe("a"), {"spec": {"mode": "Fast"}})).metadata["generation"] == 2


async def test_status_and_the_rest_are_written_apart(api: Api) -> None:
    made = await api.create(probe("a", {"phase": "Ready"}, mode="Fast"))
    assert "status" not in made.body
    main = await api.merge(probe("a"), {"spec": {"mode": "Safe"}, "status": {"phase": "Ready"}})
    assert (main.body["spec"]["mode"], "status" in main.body) == ("Safe", False)
    status = await api.merge(probe("a"), {"spec": {"mode": "Fast"}, "status": {"phase": "Ready"}}, "status")
    assert (status.body["spec"]["mode"], status.body["status"]) == ("Safe", {"phase": "Ready"})
    again = await api.update(status.body | {"status": {"phase": "Lost"}})
    assert again.body["status"] == {"phase": "Ready"}


async def test_a_merge_patch_sets_and_takes_out(api: Api) -> None:
    await api.create(config_map("a", x="1", y="2"))
    patched = await api.merge(config_map("a"), {"data": {"x": None, "z": "3"}})
    assert patched.body["data"] == {"y": "2", "z": "3"}


async def test_a_patch_can_carry_the_version_it_is_for(api: Api) -> None:
    made = await api.create(config_map("a"))
    patch = {"metadata": {"resourceVersion": made.revision}, "data": {"x": "1"}}
    assert (await api.merge(config_map("a"), patch)).code == 200
    assert (await api.merge(config_map("a"), patch | {"data": {"x": "2"}})).code == 409


async def test_a_json_patch_is_done_whole_or_not_at_all(api: Api) -> None:
    await api.create(config_map("a", x="1"))
    done = await api.json_patch(
        config_map("a"), {"op": "test", "path": "/data/x", "value": "1"}, {"op": "add", "path": "/data/y", "value": "2"}
    )
    assert done.body["data"] == {"x": "1", "y": "2"}
    refused = await api.json_patch(
        config_map("a"), {"op": "remove", "path": "/data/y"}, {"op": "test", "path": "/data/x", "value": "9"}
    )
    assert (refused.code, refused.body["reason"]) == (422, "Invalid")
    assert (await api.get(config_map("a"))).body["data"] == {"x": "1", "y": "2"}


async def test_a_custom_kind_takes_no_strategic_merge_patch(api: Api) -> None:
    await api.create(probe("a"))
    refused = await api.call(
        "PATCH", api.path(probe("a"), "a"), {}, content_type="application/strategic-merge-patch+json"
    )
    assert (refused.code, refused.body["reason"]) == (415, "UnsupportedMediaType")


async def test_deletion_answers_with_success_and_the_uid(api: Api) -> None:
    made = await api.create(probe("a"))
    gone = await api.delete(probe("a"))
    assert (gone.code, gone.body["status"], gone.body["details"]["uid"]) == (200, "Success", made.metadata["uid"])
    assert (await api.get(probe("a"))).code == 404


async def test_deletion_can_name_the_object_that_is_meant(api: Api) -> None:
    made = await api.create(config_map("a"))
    for meant in ({"uid": ELSEWHERE}, {"resourceVersion": "1"}):
        refused = await api.delete(config_map("a"), {"preconditions": meant})
        assert (refused.code, refused.body["reason"]) == (409, "Conflict")
    assert (await api.delete(config_map("a"), {"preconditions": {"uid": made.metadata["uid"]}})).code == 200


async def test_a_finalizer_holds_a_deleted_object(api: Api) -> None:
    held = named(probe("a"), finalizers=[FINALIZER])
    await api.create(held)
    marked = await api.delete(held)
    assert {"deletionTimestamp", "deletionGracePeriodSeconds"} <= marked.metadata.keys()
    assert marked.metadata["generation"] == 2
    assert (await api.delete(held)).revision == marked.revision

    refused = await api.merge(held, {"metadata": {"finalizers": [FINALIZER, f"{GROUP}/more"]}})
    assert (refused.code, set(refused.causes)) == (422, {("FieldValueForbidden", "metadata.finalizers")})
    assert (await api.create(held)).body["reason"] == "AlreadyExists"

    released = await api.merge(held, {"metadata": {"finalizers": None}})
    assert (released.code, "finalizers" in released.metadata) == (200, False)
    assert (await api.get(held)).code == 404


async def test_many_are_deleted_at_once_by_label(api: Api) -> None:
    for name in ("a", "b", "c"):
        await api.create(named(config_map(name), labels={"contract-name": name}))
    await api.call("DELETE", api.path(config_map("")), labelSelector="contract-name in (a,b)")
    assert [
        item["metadata"]["name"]
        for item in (await api.list(config_map(""), labelSelector="contract-name")).body["items"]
    ] == ["c"]


async def test_a_dry_run_checks_all_and_changes_nothing(api: Api) -> None:
    assert (await api.create(probe("a", mode="Fast"), dryRun="All")).code == 201
    assert (await api.create(probe("a", mode="Slow"), dryRun="All")).code == 422
    assert (await api.get(probe("a"))).code == 404
    made = await api.create(probe("a", mode="Fast"))
    assert (await api.merge(probe("a"), {"spec": {"mode": "Safe"}}, dryRun="All")).body["spec"]["mode"] == "Safe"
    assert (await api.apply(probe("a", mode="Safe"), dryRun="All", force="true")).body["spec"]["mode"] == "Safe"
    assert (await api.delete(probe("a"), dryRun="All")).code == 200
    assert (await api.delete(probe("a"), {"dryRun": ["All"]})).code == 200
    assert (await api.get(probe("a"))).body == made.body


async def test_a_body_of_another_kind_is_refused(api: Api) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}
    assert (await api.call("POST", api.path(config_map("a")), secret)).code == 400
    assert (await api.call("POST", api.path(probe("a")), {"metadata": {"name": "a"}})).code == 400
    assert (await api.create(named(config_map("a"), namespace="elsewhere"))).code == 400


@pytest.mark.parametrize(
    ("api_version", "kind", "spec"),
    [
        ("policy/v1", "PodDisruptionBudget", {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}),
        (
            "networking.k8s.io/v1",
            "NetworkPolicy",
            {
                "podSelector": {"matchLabels": {"app": "a"}},
                "policyTypes": ["Ingress"],
                "ingress": [{"ports": [{"port": 8080, "protocol": "TCP"}]}],
            },
        ),
    ],
)
async def test_a_built_in_kind_is_kept_as_it_was_sent(api: Api, api_version: str, kind: str, spec: Object) -> None:
    value: Object = {"apiVersion": api_version, "kind": kind, "metadata": {"name": "a"}, "spec": spec}
    made = await api.apply(value)
    assert made.body["spec"] == spec
    again = await api.apply(value)
    assert (again.code, again.body["spec"], again.metadata["generation"]) == (200, spec, 1)


async def test_a_service_keeps_its_selector_and_gets_defaults(api: Api) -> None:
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    value: Object = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}}
    made = await api.apply(value | {"spec": {"selector": {"app": "a"}, "ports": ports}})
    assert made.body["spec"]["selector"] == {"app": "a"}
    assert made.body["spec"]["ports"] == [ports[0] | {"protocol": "TCP"}]
    assert (made.body["spec"]["type"], made.body["spec"]["sessionAffinity"]) == ("ClusterIP", "None")


async def test_a_secret_encodes_its_texts(api: Api) -> None:
    value = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "stringData": {"key": "value"}}
    made = await api.create(value)
    assert (made.body["data"], made.body["type"], "stringData" in made.body) == ({"key": "dmFsdWU="}, "Opaque", False)


async def test_an_access_review_is_answered_and_not_kept(api: Api) -> None:
    attributes = {"verb": "list", "resource": "pods", "namespace": api.namespace}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    reply = await api.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
    assert (reply.code, reply.body["status"]["allowed"]) == (201, True)
