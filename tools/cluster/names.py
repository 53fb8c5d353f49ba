"""CoreDNS as a host process, at the address that the kubelet gives to pods: names of Services, and no others."""

from __future__ import annotations

import probes
from build import Built
from host import write
from layout import DNS_IP, Layout
from processes import Processes

_READY = "127.0.0.1:8181"


def start(layout: Layout, built: Built, processes: Processes) -> None:
    """Start CoreDNS; the API server answers."""
    settings = layout.settings / "Corefile"
    write(settings, _settings(layout))
    processes.start("coredns", [built.program("coredns"), "-conf", settings])


def wait(processes: Processes) -> None:
    """Wait until it knows the cluster's Services."""
    processes.wait("coredns", lambda: probes.answers(f"http://{_READY}/ready"))


def _settings(layout: Layout) -> str:
    return f""".:53 {{
  bind {DNS_IP}
  ready {_READY}
  errors
  kubernetes cluster.local in-addr.arpa ip6.arpa {{
    kubeconfig {layout.kubeconfig}
    ttl 1
  }}
  # There is nothing outside: no name is known, and whoever asks is told so at once.
  template ANY ANY {{
    rcode NXDOMAIN
  }}
}}
"""
