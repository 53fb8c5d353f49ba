"""Everything that goes wrong in the control loop, as one tree.

OperatorError
├── ManifestError       the manifest cannot be read or breaks a rule; carries file, line and field
├── EditRefused         a valid manifest that must not replace the one in force
├── RequestRefused      somebody's decision does not apply to the rollout as it stands
├── StateInUse          another process holds the state folder
├── StateUnreadable     a file in the state folder is not what this version writes
├── StateUnwritable     the state folder cannot be made or written to
├── PortTaken           the gateway's port is in use
├── ServerFailed        a model server will not come up with what it was given
└── GatewayError        retryable: Envoy ended, refused a configuration, or did not confirm it in time
"""

from __future__ import annotations

from typing import ClassVar


class OperatorError(Exception):
    """Root of the tree."""

    retryable: ClassVar[bool] = False
    ends_pass: ClassVar[bool] = False
    """Whether nothing more may be done before the world is looked at anew."""
    exit_code: ClassVar[int] = 1
    """What a command ends with: 2 where the user's input is at fault, 1 otherwise."""


class ManifestError(OperatorError):
    """A manifest cannot be read or breaks a rule."""

    exit_code: ClassVar[int] = 2

    def __init__(self, *, source: str, line: int | None, field: str, message: str) -> None:
        """Make the error.

        Args:
            source: The file, as the user named it.
            line: Line of the field, from 1; None if the file as a whole is at fault.
            field: Path of the field, such as ``spec.variants[1].model.digest``; empty for the whole file.
            message: What is wrong and how to mend it.
        """
        place = source if line is None else f"{source}:{line}"
        super().__init__(": ".join(part for part in (place, field, message) if part))
        self.source = source
        self.line = line
        self.field = field


class EditRefused(OperatorError):
    """A valid manifest that must not replace the one in force."""

    exit_code: ClassVar[int] = 2


class RequestRefused(OperatorError):
    """Somebody's decision does not apply to the rollout as it stands."""


class StateInUse(OperatorError):
    """Another process holds the state folder."""


class StateUnreadable(OperatorError):
    """A file in the state folder is not what this version writes."""


class StateUnwritable(OperatorError):
    """The state folder cannot be made or written to."""


class PortTaken(OperatorError):
    """The gateway's port is in use."""


class ServerFailed(OperatorError):
    """A model server will not come up with what it was given."""


class GatewayError(OperatorError):
    """Envoy ended, refused a configuration, or did not confirm it in time."""

    retryable: ClassVar[bool] = True
