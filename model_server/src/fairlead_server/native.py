"""The extension of ``model_server/native``. It is optional: whatever it does, something in Python does too."""

from __future__ import annotations

import importlib
from typing import Any

try:
    native: Any = importlib.import_module("fairlead_server_native")
except ImportError:
    native = None
