"""A custom kind's schema is kept in memory as on a real kube-apiserver."""

from __future__ import annotations

from typing import Any

import pytest

from support.kube.contract import Api, probe


@pytest.mark.parametrize(
    ("spec", "causes"),
    [
        ({"replicas": "many"}, [("FieldValueTypeInvalid", "spec.replicas")]),
        ({"replicas": 0}, [("FieldValueInvalid", "spec.replicas")]),
        ({"replicas": 11}, [("FieldValueInvalid", "spec.replicas")]),
        ({"ratio": 0}, [("FieldValueInvalid", "spec.ratio")]),
        ({"mode": "Slow"}, [("FieldValueNotSupported", "spec.mode")]),
        ({"code": "a"}, [("FieldValueInvalid", "spec.code")]),
        ({"code": "abcdef"}, [("FieldValueTooLong", "spec.code")]),
        ({"code": "A1"}, [("FieldValueInvalid", "spec.code")]),
        ({"enabled": "yes"}, [("FieldValueTypeInvalid", "spec.enabled")]),
        ({"at": "noon"}, [("FieldValueTypeInvalid", "spec.at")]),
        ({"args": ["1", "2", "3", "4"]}, [("FieldValueTooMany", "spec.args")]),
        ({"args": [1]}, [("FieldValueTypeInvalid", "spec.args[0]")]),
        ({"tags": ["x", "x"]}, [("FieldValueDuplicate", "spec.tags[1]")]),
        ({"arms": [{"name": "a"}, {"name": "a"}]}, [("FieldValueDuplicate", "spec.arms[1]")]),
        ({"arms": []}, [("FieldValueInvalid", "spec.arms")]),
        ({"arms": [{"weight": 1}]}, [("FieldValueRequired", "spec.arms[0].name")]),
        ({"settings": {"a": "1", "b": "2", "c": "3"}}, [("FieldValueTooMany", "spec.settings")]),
        ({"inner": {}}, [("FieldValueRequired", "spec.inner.key")]),
    ],
)
async def test_what_breaks_the_schema_is_invalid(api: Api, spec: dict[str, Any], causes: list[tuple[str, str]]) -> None:
    refused = await api.create(probe("a", **spec))
    assert (refused.code, refused.body["reason"], refused.causes) == (422, "Invalid", causes)
    assert refused.body["details"]["kind"] == "Probe"


async def test_defaults_are_filled_in(api: Api) -> None:
    made = await api.create(probe("a", inner={"key": "k"}, arms=[{"name": "x"}], replicas=None))
    assert made.body["spec"] == {
        "replicas": 1,
        "inner": {"key": "k", "depth": 3},
        "arms": [{"name": "x", "role": "Treatment"}],
    }


async def test_null_is_kept_only_where_it_may_be(api: Api) -> None:
    made = await api.create(probe("a", note=None, mode=None))
    assert made.body["spec"] == {"replicas": 1, "note": None}


async def test_unknown_fields_are_dropped_with_a_warning(api: Api) -> None:
    made = await api.create(probe("a", extra=1, free={"any": [{"thing": 1}]}))
    assert made.body["spec"] == {"replicas": 1, "free": {"any": [{"thing": 1}]}}
    assert 'unknown field \\"spec.extra\\"' in made.headers["Warning"]


async def test_unknown_fields_are_refused_when_asked(api: Api) -> None:
    refused = await api.create(probe("a", inner={"key": "k", "extra": 1}), fieldValidation="Strict")
    assert (refused.code, refused.body["reason"]) == (400, "BadRequest")
    assert 'strict decoding error: unknown field "spec.inner.extra"' in refused.body["message"]


async def test_status_has_a_schema_too(api: Api) -> None:
    await api.create(probe("a"))
    refused = await api.merge(probe("a"), {"status": {"conditions": [{"type": "Ready"}]}}, "status")
    assert (refused.code, refused.causes) == (422, [("FieldValueRequired", "status.conditions[0].status")])


async def test_rules_hold_over_fields_and_over_changes(api: Api) -> None:
    same = await api.create(probe("a", salt="abc", code="abc"))
    assert (same.code, same.causes) == (422, [("FieldValueInvalid", "spec")])
    assert "salt and code must differ" in same.body["message"]
    await api.create(probe("a", salt="abc"))
    changed = await api.merge(probe("a"), {"spec": {"salt": "xyz"}})
    assert (changed.code, changed.causes) == (422, [("FieldValueForbidden", "spec.salt")])
    assert (await api.merge(probe("a"), {"spec": {"mode": "Fast"}})).code == 200


async def test_an_integer_or_a_string_may_be_either(api: Api) -> None:
    assert (await api.create(probe("a", port=80))).body["spec"]["port"] == 80
    assert (await api.create(probe("b", port="http"))).body["spec"]["port"] == "http"
    assert (await api.create(probe("c", port=1.5))).code == 422
