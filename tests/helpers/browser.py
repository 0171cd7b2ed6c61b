"""Chromium, driven by the WebDriver protocol of chromedriver, with real keys and a real pointer."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
AVAILABLE = bool(CHROMIUM and CHROMEDRIVER)

_OPTIONS = (
    "headless no-sandbox disable-gpu disable-quic no-first-run disable-sync disable-dev-shm-usage "
    "disable-background-networking disable-component-update force-color-profile=srgb"
)
_KEYS = {"Tab": "\ue004", "Enter": "\ue007", "Space": " ", "Escape": "\ue00c"} | {
    f"Arrow{name}": chr(0xE012 + at) for at, name in enumerate(("Left", "Up", "Right", "Down"))
}


class Browser:
    """A session of Chromium."""

    def __init__(self, address: str) -> None:
        self._session = address
        arguments = [f"--{option}" for option in _OPTIONS.split()]
        chrome = {"binary": CHROMIUM, "args": arguments}
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": chrome}}}
        self._session += "/session/" + self._post("/session", wanted)["sessionId"]

    def _post(self, path: str, body: Any = None, method: str = "POST") -> Any:
        content = None if method == "DELETE" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self._session + path, content, method=method)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as reply:
            return json.load(reply)["value"]

    def close(self) -> None:
        """End the session."""
        self._post("", method="DELETE")

    def open(self, file: Path, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        """Open a file in a window of a given size and colour scheme."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.devtools("Emulation.setDeviceMetricsOverride", **size)
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        self.devtools("Emulation.setEmulatedMedia", features=media)
        self._post("/url", {"url": file.as_uri()})

    def devtools(self, command: str, **parameters: Any) -> Any:
        """Execute a command of the DevTools protocol."""
        return self._post("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page and return what it returns."""
        return self._post("/execute/sync", {"script": script, "args": arguments})

    def press(self, *keys: str) -> None:
        """Press keys by name, one after the other."""
        actions = [
            {"type": kind, "value": _KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")
        ]
        self._post("/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def point(self, x: float, y: float, click: bool = False) -> None:
        """Move the pointer to a place of the window, and click there if asked."""
        actions: list[dict[str, Any]] = [{"type": "pointerMove", "x": round(x), "y": round(y), "duration": 0}]
        if click:
            actions += [{"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}]
        self._post("/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": actions}]})

    def screenshot(self) -> bytes:
        """Return the whole page as a PNG image."""
        shot = self.devtools("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Start a browser, with its temporary files in a folder, and end it."""
    driver = subprocess.Popen(
        [str(CHROMEDRIVER), "--port=0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={"TMPDIR": str(folder), "HOME": str(folder), "PATH": "/usr/bin:/bin"},
    )
    try:
        assert driver.stdout is not None
        port = next(
            found[1] for line in driver.stdout if (found := re.search(r"successfully on port (\d+)", line))
        )
        session = Browser(f"http://127.0.0.1:{port}")
        try:
            yield session
        finally:
            session.close()
    finally:
        driver.terminate()
        driver.wait()
