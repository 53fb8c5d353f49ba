"""The one output that tokens carry: a number, the first probability before the first value, never a label."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.contract import Feature, Output
from support.models import make_contract


def _output(name: str, **fields: Any) -> Output:
    return Output.model_validate({"name": name, "dtype": "float32"} | fields)


LABEL = _output("carrier", dtype="string", meaning="label")
CODE = _output("code", dtype="int64", meaning="label")
VALUE = _output("delay", meaning="value")
LATE = _output("probability_late", meaning="probability")
EARLY = _output("probability_early", meaning="probability")


@pytest.mark.parametrize(
    ("outputs", "primary"),
    [
        ((LATE,), LATE),
        ((VALUE,), VALUE),
        ((LABEL, VALUE, LATE, EARLY), LATE),
        ((LABEL, VALUE), VALUE),
        ((LABEL, CODE), None),
    ],
)
def test_the_first_probability_is_carried_or_else_the_first_value(
    outputs: tuple[Output, ...], primary: Output | None
) -> None:
    contract = make_contract([Feature(view="plane", name="seats", dtype="int64")])

    assert contract.model_copy(update={"outputs": outputs}).primary_output == primary
