"""The protocol's protobuf messages: KServe's generated module, loaded without running ``kserve/__init__``.

That would take seconds and 100 MiB for one file. Whoever imports KServe too gets the same classes: protobuf makes one
per message of its pool, however often the generated code runs.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Final

_GENERATED = "kserve.protocol.grpc.grpc_predict_v2_pb2"


def _load() -> ModuleType:
    loaded = sys.modules.get(_GENERATED)
    if loaded is not None:
        return loaded
    package = importlib.util.find_spec("kserve")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("kserve is not installed", name="kserve")
    file = Path(package.origin).parent / "protocol" / "grpc" / "grpc_predict_v2_pb2.py"
    # Under another name than KServe's: its own import must not find a module without its package.
    spec = importlib.util.spec_from_file_location(f"{__name__}_generated", file)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"{file}: cannot be imported", name=_GENERATED)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pb: Final[Any] = _load()
"""``grpc_predict_v2_pb2``; its classes are made by protobuf at run time, so types do not know them."""
