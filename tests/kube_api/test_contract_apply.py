"""Server-side apply and its bookkeeping are the same in memory as on a real kube-apiserver."""

from __future__ import annotations

from support.kube.contract import APPLY, Api, config_map, named, probe
from support.kube.store import Object


async def test_apply_makes_an_object_and_then_changes_nothing(api: Api) -> None:
    made = await api.apply(probe("a", mode="Fast"))
    assert made.code == 201
    assert made.owners == {("fairlead", "Apply"): {"f:spec": {"f:mode": {}}}}
    again = await api.apply(probe("a", mode="Fast"))
    assert (again.code, again.body) == (200, made.body)


async def test_defaults_belong_to_nobody_who_applies(api: Api) -> None:
    made = await api.apply(probe("a", arms=[{"name": "x", "weight": 1}]))
    assert made.body["spec"] == {"replicas": 1, "arms": [{"name": "x", "weight": 1, "role": "Treatment"}]}
    item: Object = {".": {}, "f:name": {}, "f:weight": {}}
    assert made.owners == {("fairlead", "Apply"): {"f:spec": {"f:arms": {'k:{"name":"x"}': item}}}}


async def test_what_is_no_longer_applied_goes(api: Api) -> None:
    await api.apply(config_map("a", x="1", y="2"))
    assert (await api.apply(config_map("a", x="1"))).body["data"] == {"x": "1"}


async def test_what_someone_else_owns_too_stays(api: Api) -> None:
    await api.apply(config_map("a", x="1", y="2"))
    await api.apply(config_map("a", y="2"), "other")
    left = await api.apply(config_map("a", x="1"))
    assert left.body["data"] == {"x": "1", "y": "2"}
    assert left.owners == {
        ("fairlead", "Apply"): {"f:data": {"f:x": {}}},
        ("other", "Apply"): {"f:data": {"f:y": {}}},
    }


async def test_a_field_of_someone_else_is_a_conflict(api: Api) -> None:
    await api.apply(config_map("a", x="1", y="1"), "other")
    refused = await api.apply(config_map("a", x="2"))
    assert (refused.code, refused.body["reason"]) == (409, "Conflict")
    assert refused.causes == [("FieldManagerConflict", ".data.x")]
    assert refused.body["message"] == 'Apply failed with 1 conflict: conflict with "other": .data.x'


async def test_conflicts_name_each_field(api: Api) -> None:
    await api.create(config_map("a", x="1", y="1"))
    refused = await api.apply(config_map("a", x="2", y="2"))
    assert refused.causes == [("FieldManagerConflict", ".data.x"), ("FieldManagerConflict", ".data.y")]
    expected = 'Apply failed with 2 conflicts: conflicts with "contract" using v1:\n- .data.x\n- .data.y'
    assert refused.body["message"] == expected


async def test_force_takes_fields_over(api: Api) -> None:
    await api.apply(config_map("a", x="1", y="1"), "other")
    taken = await api.apply(config_map("a", x="2"), force="true")
    assert taken.body["data"] == {"x": "2", "y": "1"}
    assert taken.owners == {
        ("fairlead", "Apply"): {"f:data": {"f:x": {}}},
        ("other", "Apply"): {"f:data": {"f:y": {}}},
    }


async def test_the_same_value_is_shared_without_conflict(api: Api) -> None:
    await api.apply(config_map("a", x="1"), "other")
    shared = await api.apply(config_map("a", x="1"))
    assert (shared.code, len(shared.owners)) == (200, 2)


async def test_an_update_takes_what_it_changes_from_its_owner(api: Api) -> None:
    await api.apply(config_map("a", x="1", y="1"))
    edited = await api.merge(config_map("a"), {"data": {"x": "9"}})
    assert edited.owners == {
        ("fairlead", "Apply"): {"f:data": {"f:y": {}}},
        ("contract", "Update"): {"f:data": {"f:x": {}}},
    }
    assert (await api.apply(config_map("a", x="1", y="1"))).code == 409
    assert (await api.apply(config_map("a", x="1", y="1"), force="true")).body["data"] == {"x": "1", "y": "1"}


async def test_a_creator_owns_all_that_there_is(api: Api) -> None:
    made = await api.create(named(probe("a", settings={"k": "v"}), labels={"l": "1"}))
    owned: Object = {
        "f:metadata": {"f:labels": {".": {}, "f:l": {}}},
        "f:spec": {".": {}, "f:replicas": {}, "f:settings": {".": {}, "f:k": {}}},
    }
    assert made.owners == {("contract", "Update"): owned}


async def test_a_keyed_list_is_merged_by_key(api: Api) -> None:
    await api.apply(probe("a", arms=[{"name": "x", "weight": 1}, {"name": "y"}]))
    both = await api.apply(probe("a", arms=[{"name": "z"}, {"name": "y", "role": "Control"}]), "other", force="true")
    assert both.body["spec"]["arms"] == [
        {"name": "x", "weight": 1, "role": "Treatment"},
        {"name": "z", "role": "Treatment"},
        {"name": "y", "role": "Control"},
    ]
    left = await api.apply(probe("a", arms=[{"name": "x"}]))
    assert left.body["spec"]["arms"] == [
        {"name": "x", "role": "Treatment"},
        {"name": "z", "role": "Treatment"},
        {"name": "y", "role": "Control"},
    ]


async def test_a_set_is_merged_by_member_and_a_plain_list_is_one_value(api: Api) -> None:
    await api.apply(probe("a", tags=["x", "y"], args=["1"]))
    merged = await api.apply(probe("a", tags=["y", "z"], args=["2"]), "other", force="true")
    assert (merged.body["spec"]["tags"], merged.body["spec"]["args"]) == (["x", "y", "z"], ["2"])
    assert (await api.apply(probe("a", tags=["x"]))).body["spec"]["tags"] == ["x", "y", "z"]
    assert (await api.apply(probe("a", tags=["z"], args=["2"]), "other")).body["spec"]["tags"] == ["x", "z"]


async def test_a_whole_map_is_one_value(api: Api) -> None:
    await api.apply(probe("a", whole={"a": "1"}))
    refused = await api.apply(probe("a", whole={"b": "2"}), "other")
    assert refused.causes == [("FieldManagerConflict", ".spec.whole")]
    assert (await api.apply(probe("a", whole={"b": "2"}), "other", force="true")).body["spec"]["whole"] == {"b": "2"}


async def test_a_declared_object_goes_with_its_last_field(api: Api) -> None:
    await api.apply(probe("a", inner={"key": "1"}, mode="Fast"))
    assert (await api.apply(probe("a", mode="Fast"))).body["spec"] == {"replicas": 1, "mode": "Fast"}


async def test_free_fields_are_owned_one_by_one(api: Api) -> None:
    made = await api.apply(probe("a", free={"x": {"y": 1, "l": [1, 2]}}))
    free: Object = {"f:free": {"f:x": {".": {}, "f:l": {}, "f:y": {}}}}
    assert made.owners == {("fairlead", "Apply"): {"f:spec": free}}
    merged = await api.apply(probe("a", free={"x": {"z": 2}}), "other")
    assert merged.body["spec"]["free"] == {"x": {"y": 1, "l": [1, 2], "z": 2}}


async def test_status_is_applied_apart(api: Api) -> None:
    await api.apply(probe("a", {"phase": "Lost"}, mode="Fast"))
    ready = {"type": "Ready", "status": "True"}
    applied = await api.apply(probe("a", {"phase": "Ready", "conditions": [ready]}), subresource="status")
    assert applied.body["status"] == {"phase": "Ready", "conditions": [ready]}
    assert applied.metadata["generation"] == 1
    assert applied.owners == {
        ("fairlead", "Apply"): {"f:spec": {"f:mode": {}}},
        ("fairlead", "Apply/status"): {
            "f:status": {
                "f:conditions": {'k:{"type":"Ready"}': {".": {}, "f:status": {}, "f:type": {}}},
                "f:phase": {},
            }
        },
    }
    again = await api.apply(probe("a", mode="Fast"))
    assert again.body == applied.body
    fewer = await api.apply(probe("a", {"phase": "Ready"}), subresource="status")
    assert fewer.body["status"] == {"phase": "Ready"}


async def test_there_is_no_status_of_what_is_not_there(api: Api) -> None:
    assert (await api.apply(probe("a", {"phase": "Ready"}), subresource="status")).code == 404


async def test_an_applied_version_must_be_the_newest(api: Api) -> None:
    made = await api.apply(config_map("a", x="1"))
    assert (await api.apply(named(config_map("a", x="2"), resourceVersion=made.revision))).code == 200
    refused = await api.apply(named(config_map("a", x="3"), resourceVersion=made.revision), force="true")
    assert (refused.code, refused.body["reason"]) == (409, "Conflict")


async def test_finalizers_and_owners_are_shared_one_by_one(api: Api) -> None:
    await api.apply(named(probe("a"), finalizers=["contract.fairlead.dev/a"]))
    both = await api.apply(named(probe("a"), finalizers=["contract.fairlead.dev/b"]), "other")
    assert both.metadata["finalizers"] == ["contract.fairlead.dev/a", "contract.fairlead.dev/b"]
    assert (await api.apply(probe("a"))).metadata["finalizers"] == ["contract.fairlead.dev/b"]
    await api.apply(probe("a"), "other")


async def test_what_cannot_be_read_as_the_kind_is_an_error_of_the_server(api: Api) -> None:
    await api.apply(probe("a"))
    for spec in ({"extra": 1}, {"replicas": "x"}, {"args": "x"}, {"arms": [{"weight": 1}]}):
        refused = await api.apply(probe("a", **spec))
        assert refused.code == 500
        assert "failed to create typed patch object" in refused.body["message"]


async def test_what_breaks_the_schema_is_invalid(api: Api) -> None:
    refused = await api.apply(probe("a", replicas=99))
    assert (refused.code, refused.causes) == (422, [("FieldValueInvalid", "spec.replicas")])


async def test_emptying_a_map_instead_of_leaving_it_out_is_refused(api: Api) -> None:
    await api.apply(probe("a", settings={"k": "v"}))
    assert (await api.apply(probe("a", settings={}))).causes == [("FieldValueTypeInvalid", "spec.settings")]
    assert (await api.apply(probe("a"))).body["spec"] == {"replicas": 1}


async def test_apply_has_its_own_rules_for_requests(api: Api) -> None:
    path = api.path(config_map("a"), "a")
    nobody = await api.call("PATCH", path, config_map("a"), content_type=APPLY)
    assert (nobody.code, nobody.causes) == (422, [("FieldValueRequired", "fieldManager")])
    nameless = await api.call("PATCH", path, {"metadata": {"name": "a"}}, content_type=APPLY, fieldManager="fairlead")
    assert nameless.code == 400
    other = await api.call("PATCH", path, config_map("b"), content_type=APPLY, fieldManager="fairlead")
    assert other.code == 400
    kept = await api.apply(config_map("a", x="1"))
    assert (await api.apply(kept.body)).code == 400
    forced = await api.merge(config_map("a"), {}, force="true")
    assert (forced.code, forced.causes) == (422, [("FieldValueForbidden", "force")])
