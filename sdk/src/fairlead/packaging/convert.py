"""From a fitted scikit-learn estimator to an ONNX graph: one input per feature, one named output per answer."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import onnx
import pandas as pd
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import BooleanTensorType, FloatTensorType, Int64TensorType, StringTensorType
from sklearn.base import is_classifier
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline

from fairlead.contract import DType
from fairlead.packaging.errors import ConversionFailed, FeaturesDiffer
from fairlead.packaging.outputs import Label, NamedAnswer, Probability
from fairlead.packaging.refusals import takes_columns_by_name, walk

OPSET = 21
"""ONNX operator set of packaged graphs."""
ML_OPSET = 3
"""Operator set of ``ai.onnx.ml``: the newest that skl2onnx's tree converters write."""
IR_VERSION = 10
"""Of the file; what ONNX Runtime reads since 1.18."""

GRAPH_DTYPES: dict[DType, DType] = {
    "float32": "float32",
    "float64": "float32",
    "int32": "int32",
    "int64": "int64",
    "bool": "bool",
    "string": "string",
}
"""What a graph takes for each type of a feature: floats are narrowed once, here, and never again."""

_TENSORS: dict[DType, Any] = {
    "float32": FloatTensorType,
    "int64": Int64TensorType,
    "int32": Int64TensorType,
    "bool": BooleanTensorType,
    "string": StringTensorType,
}
_ELEMENTS: dict[int, DType] = {
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
    TensorProto.INT64: "int64",
    TensorProto.INT32: "int32",
    TensorProto.STRING: "string",
    TensorProto.BOOL: "bool",
}


def convert(
    estimator: Any, inputs: Mapping[str, DType], answers: Sequence[NamedAnswer], rows: pd.DataFrame
) -> onnx.ModelProto:
    """Convert ``estimator`` to a graph without metadata.

    Args:
        estimator: A fitted classifier or regressor, trained on a DataFrame.
        inputs: The graph's inputs in their order, each of shape [n, 1], with the types of ``GRAPH_DTYPES``' values.
        answers: The graph's outputs, each of shape [n].
        rows: A few rows as the estimator takes them.

    Raises:
        ConversionFailed: The converter cannot translate a step; the message names it.
    """
    steps = _by_column(_with_float32_thresholds(estimator), rows)
    columns = [str(name) for name in estimator.feature_names_in_]
    types = [(name, _TENSORS[inputs[name]]([None, 1])) for name in columns]
    try:
        model = _converted(steps, types, is_classifier(estimator))
    except Exception as error:
        raise ConversionFailed(_blame(steps, types, error)) from error
    _shape_inputs(model.graph, inputs)
    _shape_outputs(model.graph, answers)
    _prune(model.graph)
    model.ir_version = IR_VERSION
    _sort_operator_sets(model)
    return model


def output_dtypes(model: onnx.ModelProto) -> dict[str, DType]:
    """Return the element type of each graph output, by name."""
    return {output.name: _ELEMENTS[output.type.tensor_type.elem_type] for output in model.graph.output}


def graph_dtype(name: str, dtype: DType) -> DType:
    """Return what a graph takes for a feature of ``dtype``.

    Raises:
        FeaturesDiffer: No graph input can carry it.
    """
    try:
        return GRAPH_DTYPES[dtype]
    except KeyError:
        raise FeaturesDiffer(
            f"{name}: dtype {dtype} cannot be a graph input; use one of {', '.join(GRAPH_DTYPES)}"
        ) from None


def _with_float32_thresholds(estimator: Any) -> Any:
    """Return a copy whose gradient-boosted trees split at the largest float32 not above each threshold.

    No float32 value lies between the two, so the copy answers the same; the converter, which rounds a threshold to the
    nearest float32, would send values between the true and the rounded one to the other side.
    """
    narrowed = deepcopy(estimator)
    for _, step in walk(narrowed):
        for stage in getattr(step, "_predictors", ()):
            for predictor in stage:
                predictor.nodes["num_threshold"] = _floor_float32(predictor.nodes["num_threshold"])
    return narrowed


def _floor_float32(values: NDArray[np.float64]) -> NDArray[np.float32]:
    nearest = values.astype(np.float32)
    return np.where(nearest > values, np.nextafter(nearest, np.float32(-np.inf)), nearest)


def _by_column(estimator: Any, rows: pd.DataFrame) -> Pipeline:
    if takes_columns_by_name(estimator):
        return estimator if isinstance(estimator, Pipeline) else Pipeline([("columns", estimator)])
    columns = [str(name) for name in estimator.feature_names_in_]
    gather = ColumnTransformer([("inputs", "passthrough", columns)], verbose_feature_names_out=False)
    gather.fit(rows[columns])
    steps = estimator.steps if isinstance(estimator, Pipeline) else [("model", estimator)]
    return Pipeline([("inputs", gather), *steps])


def _converted(steps: Pipeline, types: list[tuple[str, Any]], classifier: bool) -> onnx.ModelProto:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter warns about its own use of deprecated numpy
        return convert_sklearn(
            steps,
            name="fairlead",
            initial_types=types,
            options={"zipmap": False} if classifier else None,
            target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
        )


def _blame(steps: Pipeline, types: list[tuple[str, Any]], error: Exception) -> str:
    name, step = _failing_step(steps, types)
    reason = " ".join(str(error).split())[:400]
    return f"{name} ({type(step).__name__}) does not convert to ONNX: {type(error).__name__}: {reason}"


def _failing_step(steps: Pipeline, types: list[tuple[str, Any]]) -> tuple[str, Any]:
    for count, (name, step) in enumerate(steps.steps, 1):
        if _converts(Pipeline(steps.steps[:count]), types):
            continue
        if isinstance(step, ColumnTransformer) and count == 1:
            return _failing_columns(name, step, types)
        return name, step
    last: tuple[str, Any] = steps.steps[-1]
    return last


def _failing_columns(name: str, step: ColumnTransformer, types: list[tuple[str, Any]]) -> tuple[str, Any]:
    for part, transformer, columns in step.transformers_:
        if isinstance(transformer, str):
            continue
        chosen = [str(column) for column in np.atleast_1d(columns)]
        own = [(column, tensor) for column, tensor in types if column in chosen]
        inner = transformer.steps if isinstance(transformer, Pipeline) else [(part, transformer)]
        for count, (inner_name, inner_step) in enumerate(inner, 1):
            if own and not _converts(_narrowed(part, inner[:count], chosen), own):
                label = f"{name}.{part}" if inner_name == part else f"{name}.{part}.{inner_name}"
                return label, inner_step
    return name, step


def _narrowed(part: str, inner: list[tuple[str, Any]], columns: list[str]) -> Pipeline:
    only = ColumnTransformer([(part, Pipeline(inner), columns)])
    only.transformers_ = [(part, Pipeline(inner), columns)]
    return Pipeline([("columns", only)])


def _converts(steps: Pipeline, types: list[tuple[str, Any]]) -> bool:
    try:
        _converted(steps, types, classifier=is_classifier(steps))
    except Exception:  # noqa: BLE001 -- the converter raises anything; which step raised is the question
        return False
    return True


def _shape_inputs(graph: onnx.GraphProto, inputs: Mapping[str, DType]) -> None:
    elements = {dtype: element for element, dtype in _ELEMENTS.items()}
    for name in (name for name, dtype in inputs.items() if dtype == "int32"):
        _widen(graph, name)
    del graph.input[:]
    graph.input.extend(helper.make_tensor_value_info(name, elements[dtype], ["n", 1]) for name, dtype in inputs.items())


def _widen(graph: onnx.GraphProto, name: str) -> None:
    """Cast an input to int64 first: many converters know no other whole numbers."""
    wide = f"fairlead_{name}_int64"
    for node in graph.node:
        node.input[:] = [wide if used == name else used for used in node.input]
    graph.node.insert(0, helper.make_node("Cast", [name], [wide], name=wide, to=TensorProto.INT64))


def _shape_outputs(graph: onnx.GraphProto, answers: Sequence[NamedAnswer]) -> None:
    sources = list(graph.output)
    del graph.output[:]
    for answer in answers:
        match answer.answer:
            case Probability():
                source = sources[1]
                _add_node(graph, "Gather", source.name, np.array(answer.column), answer.name, axis=1)
            case Label():
                source = sources[0]
                _add_node(graph, "Reshape", source.name, np.array([-1]), answer.name)
            case _:
                source = sources[0]
                _add_node(graph, "Reshape", source.name, np.array([-1]), answer.name)
        element = source.type.tensor_type.elem_type
        graph.output.append(helper.make_tensor_value_info(answer.name, element, ["n"]))


def _add_node(graph: onnx.GraphProto, kind: str, source: str, constant: Any, output: str, **attributes: int) -> None:
    name = f"fairlead_{output}"
    graph.initializer.append(numpy_helper.from_array(constant.astype(np.int64), name))
    graph.node.append(helper.make_node(kind, [source, name], [output], name=name, **attributes))


def _sort_operator_sets(model: onnx.ModelProto) -> None:
    """Put them in order of domain; the converter's order is that of a set."""
    ordered = sorted(model.opset_import, key=lambda operators: str(operators.domain))
    del model.opset_import[:]
    model.opset_import.extend(ordered)


def _prune(graph: onnx.GraphProto) -> None:
    """Drop nodes and constants that no output needs, such as the class label's."""
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    constants = [constant for constant in graph.initializer if constant.name in needed]
    del graph.node[:]
    graph.node.extend(reversed(kept))
    del graph.initializer[:]
    graph.initializer.extend(constants)
    del graph.value_info[:]
