"""How a process becomes the parent of workers, and what each worker has for itself."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict, replace
from typing import NoReturn

from fairlead_server.listening import OwnPorts
from fairlead_server.settings import Settings
from fairlead_server.workers.channel import Place
from fairlead_server.workers.parent import Plan

_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


def become_parent(settings: Settings, ports: OwnPorts) -> NoReturn:
    """Go on as the parent of ``settings.workers`` workers: the same process with its ports, and nothing imported.

    Args:
        settings: What the command line says; it has been checked.
        ports: Open ports.
    """
    plan = Plan(
        workers=settings.workers,
        arguments=sys.argv[1:],
        http_fd=ports.http.fileno(),
        grpc_fd=ports.grpc.fileno(),
        drain_delay_s=settings.drain_delay_s,
        drain_deadline_s=settings.drain_deadline_s + settings.flush_deadline_s,
    )
    for descriptor in (plan.http_fd, plan.grpc_fd):
        os.set_inheritable(descriptor, True)
    # A signal in between waits until the parent listens to it.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    command = [sys.executable, "-m", "fairlead_server.workers", json.dumps(asdict(plan))]
    os.execv(sys.executable, command)  # noqa: S606 -- the same program, without what it has imported


def shared_out(settings: Settings, place: Place) -> Settings:
    """Return a worker's own part of the settings: its folder for reports, and its share of what they may take."""
    spool_dir = None if settings.spool_dir is None else settings.spool_dir / f"worker-{place.slot}"
    return replace(settings, spool_dir=spool_dir, spool_bytes=max(1, settings.spool_bytes // place.workers))
