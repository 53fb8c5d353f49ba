"""What depends on something that has gone goes too, in memory as in a real cluster (with its controller manager)."""

from __future__ import annotations

from support.kube.contract import Api, Reply, config_map, named, probe
from support.kube.store import Object
from support.waiting import until


def owned_by(owner: Reply, name: str, **reference: bool) -> Object:
    body = owner.body
    entry = {"apiVersion": body["apiVersion"], "kind": body["kind"], "name": owner.metadata["name"]}
    return named(config_map(name), ownerReferences=[entry | {"uid": owner.metadata["uid"]} | reference])


async def until_the_collector_knows_it_all(api: Api) -> None:
    """Wait until something younger than all else was collected: a collector forgets no dependent that it has seen."""
    passing = await api.create(probe("passing"))
    await api.delete(probe("passing"))
    await api.create(owned_by(passing, "young"))
    await api.gone(config_map("young"))


async def test_dependents_go_after_their_owner(api: Api) -> None:
    owner = await api.create(probe("a"))
    await api.create(owned_by(owner, "child", controller=True, blockOwnerDeletion=True))
    await api.delete(probe("a"))
    await api.gone(config_map("child"))


async def test_an_owner_of_the_same_name_but_another_uid_owns_nothing(api: Api) -> None:
    first = await api.create(probe("a"))
    await api.delete(probe("a"))
    await api.create(probe("a"))
    await api.create(owned_by(first, "child"))
    await api.gone(config_map("child"))


async def test_a_dependent_stays_while_one_owner_is_left(api: Api) -> None:
    one, other = await api.create(probe("a")), await api.create(probe("b"))
    references = [owned_by(owner, "child")["metadata"]["ownerReferences"][0] for owner in (one, other)]
    await api.create(named(config_map("child"), ownerReferences=references))
    await api.delete(probe("a"))

    async def has_one_owner() -> bool:
        left = (await api.get(config_map("child"))).metadata["ownerReferences"]
        return bool(left == references[1:])

    await until(has_one_owner)


async def test_an_owner_deleted_in_the_foreground_goes_last(api: Api) -> None:
    owner = await api.create(probe("a"))
    held = named(owned_by(owner, "child", blockOwnerDeletion=True), finalizers=["contract.fairlead.dev/hold"])
    await api.create(held)
    await until_the_collector_knows_it_all(api)
    marked = await api.delete(probe("a"), {"propagationPolicy": "Foreground"})
    assert marked.metadata["finalizers"] == ["foregroundDeletion"]

    async def is_marked() -> bool:
        return "deletionTimestamp" in (await api.get(held)).metadata

    await until(is_marked)
    assert (await api.get(probe("a"))).code == 200
    await api.merge(held, {"metadata": {"finalizers": []}})
    await api.gone(probe("a"))


async def test_orphans_are_left_alone(api: Api) -> None:
    owner = await api.create(probe("a"))
    await api.create(owned_by(owner, "child"))
    await until_the_collector_knows_it_all(api)
    await api.delete(probe("a"), {"propagationPolicy": "Orphan"})
    await api.gone(probe("a"))
    assert "ownerReferences" not in (await api.get(config_map("child"))).metadata


async def test_a_namespace_takes_all_that_is_in_it_along(api: Api) -> None:
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": api.namespace}}
    held = named(probe("a"), finalizers=["contract.fairlead.dev/hold"])
    await api.create(held)
    await api.create(config_map("b"))
    going = await api.delete(space)
    assert going.body["status"]["phase"] == "Terminating"
    refused = await api.create(config_map("late"))
    assert (refused.code, refused.causes) == (403, [("NamespaceTerminating", "metadata.namespace")])
    await api.gone(config_map("b"))
    assert (await api.get(space)).code == 200
    await api.merge(held, {"metadata": {"finalizers": []}})
    await api.gone(space)
