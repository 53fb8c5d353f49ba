"""The network namespace of a cluster: made, entered and removed.

Inside there is only the loopback and what the cluster adds: nothing gets out, and no port can clash with anything.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

from errors import ClusterError
from layout import NODE_IP, SERVICE_CIDR, Layout

_CLONE_NEWNET = 0x40000000
_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/bridge/bridge-nf-call-iptables": "1",
    # Whatever is asked outside is told at once, and each time, that there is no way.
    "net/ipv4/icmp_ratelimit": "0",
}


def make(layout: Layout) -> None:
    """Make the namespace unless it is there."""
    if not layout.netns.exists():
        run("ip", "netns", "add", layout.id)


def enter(layout: Layout) -> None:
    """Move this process (a single thread of it, before it starts others) into the namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with layout.netns.open("rb") as namespace:
        if libc.setns(namespace.fileno(), _CLONE_NEWNET):
            raise ClusterError(f"cannot enter {layout.netns}: {os.strerror(ctypes.get_errno())}")


def prepare() -> None:
    """Set addresses, routes and forwarding inside the namespace."""
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "replace", f"{NODE_IP}/32", "dev", "lo")
    # Packets from the host to a service need somewhere local to go before they are rewritten.
    run("ip", "route", "replace", SERVICE_CIDR, "dev", "lo", "src", NODE_IP)
    for name, value in _SYSCTLS.items():
        path = Path("/proc/sys") / name
        if path.exists():
            path.write_text(value)


def remove(layout: Layout) -> None:
    """Remove the namespace, and with it its bridge and links."""
    if layout.netns.exists():
        run("ip", "netns", "delete", layout.id)


def run(*command: str | Path) -> str:
    """Run a command and return its output.

    Raises:
        ClusterError: It failed.
    """
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
