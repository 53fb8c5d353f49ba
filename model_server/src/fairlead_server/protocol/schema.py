"""What a codec must know about the served model: its name, its inputs and outputs by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fairlead.contract import Contract
from fairlead_server.errors import InvalidRequest, RequestTooLarge, UnknownModel
from fairlead_server.predict.signature import ANY, Signature, TensorSpec, column


@dataclass(frozen=True, slots=True)
class Schema:
    """Names, types and shapes of one served model."""

    model: str
    """Name that clients call it by."""
    version: str
    inputs: Mapping[str, TensorSpec]
    """Key inputs and graph inputs."""
    key_inputs: tuple[str, ...]
    """Names of the key inputs; empty for a model without a contract."""
    outputs: Mapping[str, TensorSpec]
    rows_limit: int
    """Rows of one request beyond which it is refused."""
    batched: bool = True
    """Whether the first dimension of every tensor counts the rows; else a request is one row of any shape."""

    @classmethod
    def of(cls, contract: Contract, model: str, rows_limit: int) -> Schema:
        """Read the schema of ``contract``, served under the name ``model``."""
        signature = Signature.of_contract(contract)
        keys = {name: column(name, dtype, (ANY,)) for name, dtype in contract.key_inputs.items()}
        return cls(
            model=model,
            version=contract.version,
            inputs={**signature.inputs, **keys},
            key_inputs=tuple(keys),
            outputs=signature.outputs,
            rows_limit=rows_limit,
            batched=signature.batched,
        )

    @classmethod
    def of_graph(cls, signature: Signature, model: str, version: str, rows_limit: int) -> Schema:
        """Return the schema of a model without a contract."""
        return cls(
            model=model,
            version=version,
            inputs=signature.inputs,
            key_inputs=(),
            outputs=signature.outputs,
            rows_limit=rows_limit,
            batched=signature.batched,
        )

    @property
    def is_plain(self) -> bool:
        """Whether the model has no contract."""
        return not any(spec.column for spec in self.outputs.values())

    def require_rows(self, rows: int) -> None:
        """Check that a request of ``rows`` rows may be decoded.

        Raises:
            RequestTooLarge: There are too many.
        """
        if rows > self.rows_limit:
            raise RequestTooLarge(f"the request has {rows} rows; send at most {self.rows_limit} at a time")

    def require_model(self, name: str, version: str = "") -> None:
        """Check that a request asks for this model.

        Args:
            name: Model's name in the request.
            version: Version in the request; empty for any.

        Raises:
            UnknownModel: It asks for another one.
        """
        if name != self.model:
            raise UnknownModel(f"model {name!r} is not served here; this server has {self.model!r}", field="model_name")
        if version and version != self.version:
            raise UnknownModel(
                f"model {name!r} has no version {version!r} here; served is {self.version!r}", field="model_version"
            )

    def require_output(self, name: object) -> str:
        """Return ``name`` if the model has such an output.

        Raises:
            InvalidRequest: It has none.
        """
        if type(name) is not str or name not in self.outputs:
            known = ", ".join(self.outputs)
            raise InvalidRequest(f"output {name!r} does not exist; the model's outputs are {known}", field="outputs")
        return name
