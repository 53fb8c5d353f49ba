"""What running servers are told without a restart: a Secret and a ConfigMap, mounted from birth as one folder."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Final

from fairlead.feedback.serving import FEEDBACK_FILE
from fairlead.route import RouteKey
from fairlead_operator.platforms.kubernetes.kinds import CONFIG_MAP, SECRET
from fairlead_operator.platforms.kubernetes.render.names import Manifest, Place, owned

ROUTE_KEYS_FILE: Final = "route-keys.json"


def serving_secret(place: Place, keys: Iterable[RouteKey], feedback: str | None = None) -> Manifest:
    """Return the Secret with the keys that verify experiment headers, and what servers are told of feedback.

    Args:
        place: Where.
        keys: The first one signs.
        feedback: ``Feedback.dumped()``; None where there is none.
    """
    content = {"keys": [{"id": key.id, "secret": key.secret.hex()} for key in keys]}
    manifest = owned(SECRET, place, place.serving_name)
    manifest["type"] = "Opaque"
    files = {ROUTE_KEYS_FILE: _text(content)} | ({FEEDBACK_FILE: feedback} if feedback is not None else {})
    manifest["data"] = {name: base64.b64encode(text.encode()).decode() for name, text in files.items()}
    return manifest


def read_feedback(manifest: Mapping[str, object]) -> str | None:
    """Return what the live Secret tells servers of feedback; None if nothing."""
    data = manifest.get("data")
    try:
        return base64.b64decode(data[FEEDBACK_FILE]).decode() if isinstance(data, Mapping) else None
    except (ValueError, KeyError, TypeError):
        return None


def read_keys(manifest: Mapping[str, object]) -> tuple[RouteKey, ...]:
    """Return the keys of a live Secret, in order; none if it is not as ``serving_secret`` writes it."""
    data = manifest.get("data")
    try:
        content = json.loads(base64.b64decode(data[ROUTE_KEYS_FILE])) if isinstance(data, Mapping) else {"keys": []}
        return tuple(RouteKey(str(key["id"]), bytes.fromhex(key["secret"])) for key in content["keys"])
    except (ValueError, KeyError, TypeError):
        return ()


def serving_config_map(place: Place, files: Mapping[str, str]) -> Manifest:
    """Return the ConfigMap with the other files of the servers' folder, such as where the ledger is.

    Args:
        place: Where.
        files: Text by file name; none may be called as a file of the Secret.
    """
    manifest = owned(CONFIG_MAP, place, place.serving_name)
    manifest["data"] = dict(sorted(files.items()))
    return manifest


def _text(content: object) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))
