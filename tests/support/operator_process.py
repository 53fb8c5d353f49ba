"""An operator as a process of its own: ``python -m support.operator_process MODE FLAG...``, MODE idle or writing.

It is put together as ``python -m fairlead_operator run`` is, around a controller that does nothing, or that writes a
ConfigMap for its key again and again, each time from the version that it saw last, as decisive writes are.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from fairlead_operator.__main__ import main
from fairlead_operator.assembly import Access, Control
from fairlead_operator.platforms.kubernetes.errors import NotFound
from fairlead_operator.platforms.kubernetes.kinds import CONFIG_MAP
from fairlead_operator.runtime.keys import ObjectKey
from support.operators import config_map


class Idle:
    """Does nothing."""

    def __init__(self, access: Access) -> None:
        self.access = access

    async def reconcile(self, key: ObjectKey) -> float | None:  # noqa: ARG002 -- nothing
        return None


class Writing(Idle):
    """Writes all the time."""

    async def reconcile(self, key: ObjectKey) -> float | None:
        place = ObjectKey(key.namespace, f"{key.name}-mark")
        version = await self._version(place)
        for count in range(1000):
            mark = config_map(place.name, namespace=place.namespace, by=f"{self.access.settings.pod_name} {count}")
            written = await self.access.api.apply(CONFIG_MAP, mark, resource_version=version)
            version = written["metadata"]["resourceVersion"]
            await asyncio.sleep(0.01)
        return 0.01

    async def _version(self, place: ObjectKey) -> str | None:
        try:
            mark = await self.access.api.get(CONFIG_MAP, place)
        except NotFound:
            return None
        version: str = mark["metadata"]["resourceVersion"]
        return version


class OperatorProcess:
    """A running one, and what it tells over HTTP."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port

    @property
    def pid(self) -> int:
        return self.process.pid

    async def ask(self, path: str) -> tuple[int, str]:
        """Return status and text of a path; 0 if nobody answers yet."""
        url = f"http://127.0.0.1:{self.port}/{path}"
        try:
            async with aiohttp.ClientSession() as session, session.get(url) as response:
                return response.status, await response.text()
        except aiohttp.ClientError:
            return 0, ""

    def resident_mib(self) -> tuple[float, float]:
        """Return the memory that the process has now and the most that it ever had, MiB."""
        lines = dict(
            line.split(":", 1) for line in Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8").splitlines()
        )
        now, most = (int(lines[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
        return now, most

    def cpu_s(self) -> float:
        """Return the processor time that it has used so far, seconds."""
        ticks = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[11:13]
        return sum(int(one) for one in ticks) / 100


async def start(mode: str, kubeconfig: Path, port: int, *flags: str, output: int | None = None) -> OperatorProcess:
    """Start one; the caller ends it."""
    arguments: Sequence[str] = (
        *("-m", "support.operator_process", mode, "--kubeconfig", str(kubeconfig)),
        *("--http-host", "127.0.0.1", "--http-port", str(port), "--log-format", "text", *flags),
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=Path(__file__).parents[1], stderr=output
    )
    return OperatorProcess(process, port)


if __name__ == "__main__":
    made = Writing if sys.argv[1] == "writing" else Idle
    sys.exit(main(["run", *sys.argv[2:]], lambda access: Control(made(access))))
