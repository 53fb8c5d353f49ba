"""Where the contract tests run here: on the in-memory server."""

from support.kube.fixtures import api, kube_server

__all__ = ["api", "kube_server"]
