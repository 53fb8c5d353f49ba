"""The state folder: one lock, and per deployment what must outlive ``fairlead up``.

``.fairlead/lock``, ``.fairlead/clock`` (replayed time); ``.fairlead/NAME/``: ``state.json``, ``status.json``,
``serving/route-keys.json``, ``serving/feedback.json`` and ``ledger/keys.json`` (secret), ``ledger/``, ``spool/``,
``envoy/``, ``logs/``.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from fairlead.feedback.keys import KeyRing, KeyRingError, SigningKey
from fairlead.feedback.serving import FEEDBACK_FILE, Feedback
from fairlead.route import RouteKey
from fairlead_operator.core.record import Record, dumped, loaded
from fairlead_operator.errors import StateInUse, StateUnreadable, StateUnwritable
from fairlead_operator.platforms.local.processes import ProcessRecord

_KEY_BYTES = 32
_ANNOTATIONS = TypeAdapter(dict[str, str])


class StateRecord(BaseModel):
    """What one deployment remembers: enough to go on after any end."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["fairlead.dev/local-state/v2"] = "fairlead.dev/local-state/v2"
    generation: int = Field(default=0, ge=0)
    manifest: str | None = None
    """The last good ModelDeployment, as JSON."""
    rollout: str | None = None
    """What the rollout remembers, as JSON."""
    processes: tuple[ProcessRecord, ...] = ()
    ledger_port: int | None = Field(default=None, ge=1, le=65535)
    """Where the embedded ledger listened last."""

    def rollout_before(self, release: str) -> Record:
        """Return what the rollout remembers; a fresh record with ``release`` at first."""
        return (loaded(self.rollout) if self.rollout else None) or Record(release)

    def with_rollout(self, record: Record) -> StateRecord:
        """Return the state with another rollout record."""
        return self.model_copy(update={"rollout": dumped(record)})


class State:
    """The state folder of one deployment."""

    def __init__(self, root: Path, name: str) -> None:
        """Name the folders; nothing is made.

        Args:
            root: The state folder, such as ``.fairlead``.
            name: Name of the deployment.
        """
        self.root = root.resolve()
        self.folder = self.root / name
        self.logs = self.folder / "logs"
        self.envoy = self.folder / "envoy"
        self.serving = self.folder / "serving"
        self.ledger = self.folder / "ledger"
        self.spool = self.folder / "spool"
        self.clock = self.root / "clock"
        self.status_file = self.folder / "status.json"
        self.annotations_file = self.folder / "annotations.json"
        self._record_file = self.folder / "state.json"

    def read(self) -> StateRecord:
        """Return what was remembered; an empty record at first.

        Raises:
            StateUnreadable: The file is damaged or of another version.
        """
        try:
            return StateRecord.model_validate_json(self._record_file.read_bytes())
        except FileNotFoundError:
            return StateRecord()
        except ValidationError as error:
            raise StateUnreadable(
                f"{self._record_file}: is not this version's state; remove {self.folder} to start afresh"
            ) from error

    def write(self, record: StateRecord) -> None:
        """Remember ``record``."""
        write_whole(self._record_file, record.model_dump_json(indent=1))

    def write_status(self, resource: dict[str, Any]) -> None:
        """Publish the resource with its status."""
        write_whole(self.status_file, json.dumps(resource, indent=2))

    def annotations(self) -> dict[str, str]:
        """Return what ``fairlead pause``, ``promote`` and ``abort`` have asked for, as annotations."""
        try:
            return _ANNOTATIONS.validate_json(self.annotations_file.read_bytes())
        except FileNotFoundError:
            return {}
        except ValidationError as error:
            message = f"{self.annotations_file}: is damaged; remove it, and ask again"
            raise StateUnreadable(message) from error

    def annotate(self, changes: Mapping[str, str | None]) -> None:
        """Change annotations; None removes one."""
        merged = {**self.annotations(), **changes}
        write_whole(
            self.annotations_file, json.dumps({name: text for name, text in merged.items() if text is not None})
        )

    def route_key(self) -> RouteKey:
        """Return the key that signs experiment headers, made at the first call and kept for ever.

        Raises:
            StateUnreadable: The key file is damaged.
        """
        file = self.serving / "route-keys.json"
        if not file.exists():
            made = {"keys": [{"id": "k1", "secret": secrets.token_hex(_KEY_BYTES)}]}
            write_whole(file, json.dumps(made), mode=0o600)
        try:
            first = json.loads(file.read_bytes())["keys"][0]
            return RouteKey(first["id"], bytes.fromhex(first["secret"]))
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise StateUnreadable(f"{file}: is damaged; remove it, and a new key is made") from error

    @property
    def ledger_keys_file(self) -> Path:
        """Where the root ring is."""
        return self.ledger / "keys.json"

    def ledger_keys(self) -> KeyRing:
        """Return the root ring, made at the first call and kept for ever.

        Raises:
            StateUnreadable: The key file is damaged.
        """
        file = self.ledger_keys_file
        if not file.exists():
            signing = (SigningKey("k1", secrets.token_bytes(_KEY_BYTES)),)
            write_whole(file, KeyRing(signing, secrets.token_bytes(_KEY_BYTES)).dumped(), mode=0o600)
        try:
            return KeyRing.loaded(file.read_bytes())
        except KeyRingError as error:
            raise StateUnreadable(
                f"{file}: is damaged; restore it, or remove {self.ledger} and its evidence"
            ) from error

    def tell_servers(self, feedback: Feedback | None) -> None:
        """Say to servers where the ledger is; None lets them answer no token and report nothing."""
        file = self.serving / FEEDBACK_FILE
        if feedback is None:
            file.unlink(missing_ok=True)
            return
        text = feedback.dumped()
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            write_whole(file, text, mode=0o600)


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the state folder ``root`` for this process.

    Raises:
        StateInUse: Another process holds it.
        StateUnwritable: It cannot be made or written to.
    """
    with _writing(root):
        root.mkdir(parents=True, exist_ok=True)
        lock = (root / "lock").open("a+")
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise StateInUse(
                f"{root}: another `fairlead up` (process {holder}) uses this state; stop it, or give another --state"
            ) from None
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield


def is_held(root: Path) -> bool:
    """Return whether some process holds the state folder ``root``."""
    try:
        with (root / "lock").open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def write_whole(file: Path, text: str, mode: int = 0o644) -> None:
    """Put ``text`` into ``file`` in one step: a reader sees the old or the new, never a part.

    Raises:
        StateUnwritable: The system does not let us.
    """
    with _writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(f".{file.name}.{os.getpid()}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            out.write(text)
        fresh.replace(file)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write ``path`` into ``StateUnwritable``."""
    try:
        yield
    except OSError as error:
        message = f"--state: {path} cannot be written ({error.strerror}); give a folder that can"
        raise StateUnwritable(message) from error
