"""A real Chromium without a window, driven over its DevTools protocol: what a page says, shows and prints."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

PROGRAMS = ("chromium-headless-shell", "chromium", "google-chrome")
_LISTENING = re.compile(r"DevTools listening on (ws://\S+)")
_PAGE_OBJECT = re.compile(rb"/Type\s*/Page\b(?!s)")
_ANSWER_S = 120
"""How long one answer may take on a slow machine."""
_COMPLAINTS = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")


@dataclass
class Tab:
    """One page of the browser."""

    _socket: ClientConnection
    _session: str
    complaints: list[str] = field(default_factory=list)
    """Whatever the console was told: errors, warnings, refused resources."""
    requested: list[str] = field(default_factory=list)
    """Addresses that were asked for."""
    _asked: int = 0
    _events: set[str] = field(default_factory=set)

    def screen(self, width: int, height: int, *, dark: bool = False) -> None:
        """Set the size in CSS pixels, and whether the reader likes it dark."""
        mobile = width < 600
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, address: str) -> None:
        """Load a page and wait until it is there."""
        self._events.clear()
        self.ask("Page.navigate", url=address)
        while "Page.loadEventFired" not in self._events:
            self._hear()

    def evaluate(self, expression: str) -> Any:
        """Return the JSON value of a JavaScript expression."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, *, whole: bool = True) -> bytes:
        """Return a PNG of the whole page, or of what is in sight."""
        answer = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(answer["data"])

    def pdf(self) -> bytes:
        """Return the page printed on A4."""
        answer = self.ask("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, printBackground=False)
        return base64.b64decode(answer["data"])

    def ask(self, method: str, **parameters: Any) -> Any:
        """Call the protocol and return its answer."""
        self._asked += 1
        asked = self._asked
        request = {"id": asked, "sessionId": self._session, "method": method, "params": parameters}
        self._socket.send(json.dumps(request))
        while True:
            message = self._hear()
            if message.get("id") == asked:
                assert "error" not in message, message
                return message["result"]

    def _hear(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._socket.recv(timeout=_ANSWER_S))
        method = message.get("method", "")
        self._events.add(method)
        if method in _COMPLAINTS:
            self.complaints.append(json.dumps(message["params"]))
        if method == "Network.requestWillBeSent":
            self.requested.append(message["params"]["request"]["url"])
        return message


def pages_of(pdf: bytes) -> int:
    """Return how many pages a PDF of Chromium has."""
    return len(_PAGE_OBJECT.findall(pdf))


def program() -> str | None:
    """Return the browser that is installed, or None."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


@contextmanager
def chromium(folder: Path) -> Iterator[Tab]:
    """Run a browser with its profile in ``folder``; skips the test where there is none."""
    found = program()
    if found is None:
        pytest.skip("Chromium is not installed (apt-get install chromium-headless-shell)")
    flags = ["--headless", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--remote-debugging-port=0"]
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    command = [found, *flags, *sandbox, "--disable-dev-shm-usage", f"--user-data-dir={folder}", "about:blank"]
    # The installed program is a script that starts the browser, which starts more: they end as one group.
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True
    ) as process:
        try:
            with connect(_address(process), max_size=None, open_timeout=_ANSWER_S) as socket:
                yield _tab(socket)
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if found := _LISTENING.search(line):
            return found.group(1)
    raise RuntimeError("Chromium ended before it listened")


def _tab(socket: ClientConnection) -> Tab:
    target = _once(socket, 1, "Target.createTarget", {"url": "about:blank"})["targetId"]
    session = _once(socket, 2, "Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
    tab = Tab(socket, session, _asked=2)
    for domain in ("Page", "Runtime", "Log", "Network"):
        tab.ask(f"{domain}.enable")
    return tab


def _once(socket: ClientConnection, asked: int, method: str, parameters: dict[str, Any]) -> Any:
    socket.send(json.dumps({"id": asked, "method": method, "params": parameters}))
    while True:
        message = json.loads(socket.recv(timeout=_ANSWER_S))
        if message.get("id") == asked:
            return message["result"]
