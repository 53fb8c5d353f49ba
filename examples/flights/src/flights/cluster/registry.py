"""The registry as a file that anybody makes alike: Feast's own, without what differs from one run to the next.

Feast writes times, random ids and the path of the definitions into it. In a file under version control these would
change at every writing; so times are the start of the replay, ids are made of names, and the path is relative.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dill  # type: ignore[import-untyped]  # comes with feast, which pickles by it
from feast import FeatureStore
from feast.protos.feast.core.Registry_pb2 import Registry
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from flights.features import REPLAY_START
from flights.store import apply

DEFINITIONS = "definitions.py"
SETTINGS = "feature_store.yaml"
_ONE_MACHINE = """\
project: {project}
provider: local
registry: registry.db
offline_store: {{type: file}}
online_store: {{type: sqlite, path: online_store.db}}
entity_key_serialization_version: 3
"""


def registry_of(repo: Path, project: str) -> Registry:
    """Register what ``definitions.py`` of ``repo`` defines, and return the registry.

    Args:
        repo: Folder of the definitions; only read.
        project: Feast's project, part of every key in the online store.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copyfile(repo / DEFINITIONS, folder / DEFINITIONS)
        (folder / SETTINGS).write_text(_ONE_MACHINE.format(project=project))
        apply(FeatureStore(repo_path=str(folder)))
        registry: Registry = Registry.FromString((folder / "registry.db").read_bytes())
    return _timeless(registry)


def same_but_for_pickles(one: Registry, other: Registry) -> bool:
    """Return whether two registries define the same; pickled functions differ between versions of Python."""
    return _without_pickles(one) == _without_pickles(other)


def serialized(registry: Registry) -> bytes:
    """Return the registry as a file of Feast's."""
    content: bytes = registry.SerializeToString(deterministic=True)
    return content


def _timeless(registry: Registry) -> Registry:
    registry.ClearField("feature_view_version_history")
    registry.version_id = str(uuid.uuid5(uuid.NAMESPACE_URL, "fairlead/flights/registry"))
    for project in registry.project_metadata:
        project.project_uuid = str(uuid.uuid5(uuid.NAMESPACE_URL, f"fairlead/flights/{project.project}"))
    _stop_time(registry)
    _sort(registry)
    for view in registry.on_demand_feature_views:
        function = view.spec.feature_transformation.user_defined_function
        function.body = _repickled(function.body)
    return registry


def _sort(registry: Registry) -> None:
    """Order what Feast keeps in the order of sets, which differs from process to process."""
    registry.data_sources.sort(key=lambda source: source.name)
    registry.entities.sort(key=lambda entity: entity.spec.name)
    registry.feature_views.sort(key=lambda view: view.spec.name)
    registry.feature_services.sort(key=lambda service: service.spec.name)


def _stop_time(message: Message) -> None:
    for field, value in message.ListFields():
        for part in _parts(value) if field.is_repeated else [value]:
            if isinstance(part, Timestamp):
                part.FromDatetime(REPLAY_START)
            elif isinstance(part, Message):
                _stop_time(part)


def _parts(repeated: Any) -> Iterable[Any]:
    return repeated.values() if isinstance(repeated, Mapping) else repeated


def _repickled(body: bytes) -> bytes:
    function: Any = dill.loads(body)  # noqa: S301 -- of our own definitions, pickled a moment ago
    function.__code__ = function.__code__.replace(co_filename=DEFINITIONS)
    pickled: bytes = dill.dumps(function, recurse=True)
    return pickled


def _without_pickles(registry: Registry) -> Registry:
    copy = Registry()
    copy.CopyFrom(registry)
    for view in copy.on_demand_feature_views:
        view.spec.feature_transformation.user_defined_function.body = b""
    return copy
