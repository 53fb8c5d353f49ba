"""Why a revision's pods do not answer, read from containers as a kubelet describes them."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead_operator.core.observed import Health
from fairlead_operator.platforms.kubernetes.pods import FETCHER, trouble

SERVER = "kserve-container"
REFUSED = {"terminated": {"exitCode": 3, "reason": "Error", "message": "digest is another"}}
KILLED = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
RUNNING = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
WAITING = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 20s"}}


def pod(name: str = SERVER, *, state: Any, last: Any = None, started: bool = False, ready: bool = False) -> Any:
    """Return a pod with one container."""
    status = {"name": name, "state": state, "lastState": last or {}, "started": started, "ready": ready}
    group = "initContainerStatuses" if name == FETCHER else "containerStatuses"
    return {"metadata": {"name": "p"}, "status": {group: [status]}}


def health(*pods: Any) -> Health | None:
    found = trouble(pods, None, {})
    return found.health if found else None


@pytest.mark.parametrize(("name", "started"), [(FETCHER, True), (SERVER, False)])
@pytest.mark.parametrize("state", [WAITING, REFUSED, RUNNING])
def test_a_refusal_is_told_without_a_break_while_the_container_is_tried_again(
    name: str, started: bool, state: Any
) -> None:
    assert health(pod(name, state=state, last=REFUSED, started=started)) is Health.REFUSED


@pytest.mark.parametrize("ready", [True, False])
def test_a_container_that_has_got_over_its_last_end_is_no_trouble(ready: bool) -> None:
    assert health(pod(state=RUNNING, last=KILLED, started=True, ready=ready)) is None


def test_a_fetch_that_succeeded_in_the_end_is_no_trouble() -> None:
    done = {"terminated": {"exitCode": 0, "reason": "Completed"}}
    assert health(pod(FETCHER, state=done, last=KILLED, ready=True)) is None
    assert health(pod(SERVER, state=RUNNING)) is None


def test_the_kernel_s_kill_is_named() -> None:
    found = trouble([pod(state=WAITING, last=KILLED)], None, {})
    assert found is not None
    assert found.failure.message == f"container {SERVER} ended with 137: OOMKilled"


def test_of_a_long_log_the_last_lines_are_told() -> None:
    log = "\n".join(f"line {number} of a traceback" for number in range(90)) + "\nMemoryError: 3 GiB"
    ended = {"terminated": {"exitCode": 1, "reason": "Error", "message": log}}
    found = trouble([pod(state=WAITING, last=ended)], None, {})
    assert found is not None
    assert found.failure.message.startswith(f"container {SERVER} ended with 1: ... line 5")
    assert found.failure.message.endswith("line 89 of a traceback\nMemoryError: 3 GiB")
