"""A one-node Kubernetes cluster for tests: the real programs as host processes in a network namespace of their own.

etcd, kube-apiserver, kube-controller-manager, kube-scheduler, containerd with kubelet and kube-proxy, KServe's
controller, istiod, CoreDNS, and an Envoy as its gateway. Needs Linux, root and Go; ``make cluster-up`` and
``cluster-down``.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import archives
import bringup
import istio
import network
import pod_images
import programs
import teardown
from build import Built, build
from errors import ClusterError, Unavailable
from host import CNI_PROGRAMS, ROOT
from layout import (
    API_URL,
    DNS_IP,
    GATEWAY_ADMIN_PORT,
    GATEWAY_IP,
    GATEWAY_PORT,
    ISTIOD_URL,
    NODE,
    NODE_IP,
    Layout,
)
from pod_images import Images
from processes import Processes

STATE = ROOT / "build/cluster"
_PACKAGES = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "nft": "nftables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "umount": "mount",
}
"""Debian package by program."""


def main() -> int:
    """Do what was asked; return the exit code."""
    parser = _parser()
    # Arguments of pytest that begin with a dash are not ours.
    arguments, others = parser.parse_known_args()
    if others and arguments.command != "test":
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    layout = Layout(arguments.state.absolute())
    try:
        if arguments.command == "build":
            build()
        elif arguments.command == "up":
            up(layout, packaged=arguments.packaged)
        elif arguments.command == "down":
            down(layout)
        elif arguments.command == "stop":
            _check_root()
            Processes(layout).stop(arguments.programs)
        elif arguments.command == "restart":
            restart(layout, arguments.programs)
        elif arguments.command == "test":
            return test(layout, [*others, *arguments.words])
        else:
            enter_and_run(layout, _words(arguments.words))
    except ClusterError as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    return 0


def up(layout: Layout, *, packaged: bool = False) -> None:
    """Bring the cluster up; starts what is missing of one that is there.

    Args:
        layout: Where it lives.
        packaged: Have the released images, and nothing of the host in containers; one that is there stays what it is.

    Raises:
        ClusterError: The machine lacks something, or a program did not start.
    """
    _check_root()
    _check_programs()
    with _only(layout):
        built = build()
        if teardown.exists(layout) and not layout.netns.exists():
            # What is left of a cluster that did not survive the machine.
            teardown.down(layout)
        if packaged or layout.packaged:
            archives.build()
        _choose(layout, packaged=packaged)
        network.make(layout)
        network.enter(layout)
        found = pod_images.of(layout, built)
        bringup.start(layout, built, found)
        layout.facts.write_text(json.dumps(facts(layout, built, found), indent=2) + "\n")
    print(f"cluster: {layout.id} is up; its kubeconfig is {layout.kubeconfig}, of use inside its network namespace:")
    words = [os.path.relpath(sys.executable), os.path.relpath(Path(__file__).parent)]
    chosen = [] if layout.state == STATE else [f"--state={layout.state}"]
    print("cluster:  ", *words, *chosen, "run -- kubectl get pods --all-namespaces")


def restart(layout: Layout, names: list[str]) -> None:
    """Start programs of a running cluster again, and return once they do their work.

    Raises:
        ClusterError: There is no cluster, no such program, or one did not start.
    """
    _check_running(layout)
    with _only(layout), bringup.Steps()(f"restart {' '.join(names)}"):
        network.enter(layout)
        programs.restart(layout, build(), names)


def down(layout: Layout) -> None:
    """Take the cluster down; does nothing where there is none."""
    if not teardown.exists(layout):
        print("cluster: there is none")
        return
    _check_root()
    with _only(layout), bringup.Steps()("down"):
        teardown.down(layout)


def test(layout: Layout, words: list[str]) -> int:
    """Run ``tests/cluster`` inside the cluster, and return pytest's exit code.

    A cluster that was up before stays up; one that was started for this is taken down, whatever happened. Where none
    can be, the tests run outside and are skipped, which is for them to count.
    """
    was_up = layout.facts.exists()
    environment = {"FAIRLEAD_CLUSTER": str(layout.facts)}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        try:
            up(layout)
        except Unavailable as reason:
            print(f"cluster: {reason}", file=sys.stderr)
            environment = {"FAIRLEAD_CLUSTER_ABSENT": str(reason)}
        asked = any(Path(word.partition("::")[0]).exists() for word in words)
        command = [sys.executable, "-m", "pytest", *words, *([] if asked else ["tests/cluster"])]
        return subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, check=False).returncode
    finally:
        if not was_up and teardown.exists(layout):
            down(layout)


def enter_and_run(layout: Layout, words: list[str]) -> None:
    """Become the given command, inside the cluster's network namespace, with KUBECONFIG, kubectl and helm.

    Raises:
        ClusterError: There is no cluster, or no such command.
    """
    _check_running(layout)
    built = build()
    folders = [str(built.program(name).parent) for name in ("kubectl", "helm")]
    path = os.pathsep.join([*folders, os.environ.get("PATH", "")])
    environment = os.environ | {
        "PATH": path,
        "KUBECONFIG": str(layout.kubeconfig),
        "FAIRLEAD_CLUSTER": str(layout.facts),
        "NO_PROXY": "*",
        "no_proxy": "*",
    }
    program = shutil.which(words[0], path=path)
    if program is None:
        raise ClusterError(f"{words[0]}: no such program")
    network.enter(layout)
    os.execve(program, words, environment)  # noqa: S606  # without a shell, as it should be


def _words(words: list[str]) -> list[str]:
    command = words[1:] if words[:1] == ["--"] else words
    if not command:
        raise ClusterError("which command?")
    return command


def facts(layout: Layout, built: Built, found: Images) -> dict[str, object]:
    """Return what tests need to know."""
    return {
        "id": layout.id,
        "kubeconfig": str(layout.kubeconfig),
        "api": API_URL,
        "node": NODE,
        "node_ip": NODE_IP,
        "gateway": {
            "address": f"{GATEWAY_IP}:{GATEWAY_PORT}",
            "admin": f"http://{GATEWAY_IP}:{GATEWAY_ADMIN_PORT}",
            "namespace": istio.INGRESS,
            "selector": istio.SELECTOR,
            "name": f"{istio.INGRESS}/public",
        },
        "istiod": ISTIOD_URL,
        "logs": str(layout.logs),
        "state": str(layout.state),
        "dns": DNS_IP,
        "packaged": layout.packaged,
        "images": dict(found.released),
        "programs": {name: str(built.program(name)) for name in ("kubectl", "helm", "versitygw")},
    }


def _choose(layout: Layout, *, packaged: bool) -> None:
    """Settle what kind of cluster it is: that of the one that is there, or the one that is asked for."""
    if packaged and not layout.packaged:
        if teardown.exists(layout):
            raise ClusterError(f"{layout.id} is up, but not packaged; end it first (down), or choose another --state")
        layout.run.mkdir(parents=True)
        layout.mark.touch()


@contextmanager
def _only(layout: Layout) -> Iterator[None]:
    """Let one process at a time change a cluster."""
    layout.state.mkdir(parents=True, exist_ok=True)
    lock: TextIO
    with (layout.state / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("cluster: waiting for another process that changes it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _check_running(layout: Layout) -> None:
    _check_root()
    if not (layout.kubeconfig.exists() and layout.netns.exists()):
        raise ClusterError("there is none; `make cluster-up` starts it")


def _check_root() -> None:
    if os.geteuid() != 0:
        raise Unavailable("needs root: it makes a network namespace, mounts and containers")


def _check_programs() -> None:
    missing = sorted({package for program, package in _PACKAGES.items() if shutil.which(program) is None})
    if not (CNI_PROGRAMS / "bridge").exists():
        missing.append("containernetworking-plugins")
    if missing:
        raise Unavailable(
            f"not here: {', '.join(missing)}; `make setup` as root installs them (Debian: apt-get install)"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("cluster", description=__doc__)
    parser.add_argument("--state", type=Path, default=STATE, help="folder of its state (default: build/cluster)")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="build the programs that the cache lacks")
    start = commands.add_parser("up", help="start it, or what is missing of it")
    start.add_argument("--packaged", action="store_true", help="with the released images and nothing of the host")
    commands.add_parser("down", help="end it; its logs stay")
    stop = commands.add_parser("stop", help="end some of its programs; `up` starts them again")
    stop.add_argument("programs", nargs="+", metavar="PROGRAM", help="such as kserve-manager")
    again = commands.add_parser("restart", help="end some of its programs and start them again")
    again.add_argument("programs", nargs="+", metavar="PROGRAM", help="such as istiod")
    run = commands.add_parser("run", help="run a command inside its network namespace")
    run.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    tests = commands.add_parser("test", help="run tests/cluster in it; started and ended for this unless it is up")
    tests.add_argument("words", nargs=argparse.REMAINDER, metavar="PYTEST_ARGUMENT")
    return parser


if __name__ == "__main__":
    sys.exit(main())
