"""Lists and discovery say the same in memory as on a real kube-apiserver."""

from __future__ import annotations

import pytest

from support.kube.contract import GROUP, Api, Reply, config_map, named, probe


def names(reply: Reply) -> list[str]:
    return [item["metadata"]["name"] for item in reply.body["items"]]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("tier=a", ["p1", "p2"]),
        ("tier==a,size!=big", ["p1"]),
        ("tier in (a, b),size", ["p2", "p3"]),
        ("!tier", ["p4"]),
        ("tier notin (a)", ["p3", "p4"]),
        ("tier!=a", ["p3", "p4"]),
    ],
)
async def test_a_label_selector_selects(api: Api, selector: str, expected: list[str]) -> None:
    labels = {"p1": {"tier": "a"}, "p2": {"tier": "a", "size": "big"}, "p3": {"tier": "b", "size": "big"}, "p4": {}}
    for name, own in labels.items():
        await api.create(named(probe(name), labels=own))
    assert names(await api.list(probe(""), labelSelector=selector)) == expected


async def test_a_field_selector_knows_the_name(api: Api) -> None:
    for name in ("a", "b"):
        await api.create(probe(name))
    assert names(await api.list(probe(""), fieldSelector="metadata.name=b")) == ["b"]
    assert (await api.list(probe(""), fieldSelector="spec.mode=Fast")).code == 400
    assert (await api.list(probe(""), labelSelector="a=b=c")).code == 400


async def test_items_carry_their_kind_only_if_it_is_custom(api: Api) -> None:
    await api.create(probe("a"))
    await api.create(config_map("a"))
    customs = await api.list(probe(""))
    assert (customs.body["kind"], customs.body["items"][0]["kind"]) == ("ProbeList", "Probe")
    built_in = await api.list(config_map(""), fieldSelector="metadata.name=a")
    assert (built_in.body["kind"], "kind" in built_in.body["items"][0]) == ("ConfigMapList", False)


async def test_pages_are_of_one_moment(api: Api) -> None:
    for name in ("a", "b", "c", "d", "e"):
        await api.create(probe(name))
    first = await api.list(probe(""), limit="2")
    assert (names(first), first.metadata["remainingItemCount"]) == (["a", "b"], 3)
    await api.delete(probe("c"))
    await api.create(probe("cc"))
    second = await api.list(probe(""), limit="2", **{"continue": first.metadata["continue"]})
    assert (names(second), second.revision) == (["c", "d"], first.revision)
    third = await api.list(probe(""), limit="2", **{"continue": second.metadata["continue"]})
    assert (names(third), third.metadata.get("continue", "")) == (["e"], "")


async def test_a_kind_is_listed_over_all_namespaces(api: Api) -> None:
    await api.create(probe("a"))
    reply = await api.call("GET", f"/apis/{GROUP}/v1/probes")
    assert ("a", api.namespace) in [
        (item["metadata"]["name"], item["metadata"]["namespace"]) for item in reply.body["items"]
    ]


async def test_discovery_lists_a_custom_kind_with_its_status(api: Api) -> None:
    assert GROUP in [group["name"] for group in (await api.call("GET", "/apis")).body["groups"]]
    group = (await api.call("GET", f"/apis/{GROUP}")).body
    assert group["preferredVersion"] == {"groupVersion": f"{GROUP}/v1", "version": "v1"}
    resources = {one["name"]: one for one in (await api.call("GET", f"/apis/{GROUP}/v1")).body["resources"]}
    main, status = resources["probes"], resources["probes/status"]
    assert (main["kind"], main["singularName"], main["namespaced"]) == ("Probe", "probe", True)
    assert (main["shortNames"], main["categories"]) == (["prb"], ["contract"])
    assert sorted(main["verbs"]) == ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
    assert sorted(status["verbs"]) == ["get", "patch", "update"]


async def test_discovery_of_the_core_and_health(api: Api) -> None:
    assert "v1" in (await api.call("GET", "/api")).body["versions"]
    resources = {one["name"] for one in (await api.call("GET", "/api/v1")).body["resources"]}
    assert {"configmaps", "secrets", "services", "pods", "namespaces", "events", "pods/status"} <= resources
    assert "major" in (await api.call("GET", "/version")).body
    assert (await api.call("GET", "/readyz")).body == {"text": "ok"}
