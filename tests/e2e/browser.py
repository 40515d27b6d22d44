"""A real browser: headless Chromium, spoken to in WebDriver (W3C), which chromedriver serves."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.e2e.conftest import free_port, until

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Browser:
    """One window of Chromium.

    Args:
        driver: the program chromedriver.
        folder: for its profile.
        agent: the User-Agent that it sends; that of a headless browser says what it is.
    """

    def __init__(self, driver: str, folder: Path, agent: str) -> None:
        self._driver = driver
        self._folder = folder
        self._agent = agent
        self._address = f"http://127.0.0.1:{free_port()}"
        self._session = ""

    def __enter__(self) -> Self:
        port = self._address.rpartition(":")[2]
        self._process = subprocess.Popen(
            [self._driver, f"--port={port}", "--log-level=OFF"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        until(self._is_ready, "chromedriver")
        arguments = [
            "--headless=new",
            "--no-sandbox",  # Chromium has none for root
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            f"--user-data-dir={self._folder / 'profile'}",
            f"--user-agent={self._agent}",
        ]
        options = {"browserName": "chrome", "goog:chromeOptions": {"args": arguments}}
        answer = self._call("POST", "/session", {"capabilities": {"alwaysMatch": options}})
        self._session = f"/session/{answer['sessionId']}"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._session:
            self._call("DELETE", self._session)
        self._process.terminate()
        self._process.wait()

    def _is_ready(self) -> bool:
        try:
            return bool(self._call("GET", "/status")["ready"])
        except (urllib.error.URLError, ConnectionError):
            return False

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = json.dumps(body or {}).encode() if method == "POST" else None
        request = urllib.request.Request(self._address + path, data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path}: {error.read().decode()[:500]}") from None

    def open(self, url: str) -> None:
        """Opens a page and waits until it is loaded, its images too."""
        self._call("POST", f"{self._session}/url", {"url": url})

    @property
    def url(self) -> str:
        """Where it is."""
        return str(self._call("GET", f"{self._session}/url"))

    @property
    def text(self) -> str:
        """What a person reads."""
        return str(self.run("return document.body.innerText"))

    def run(self, script: str) -> Any:
        """What a script in the page returns."""
        return self._call("POST", f"{self._session}/execute/sync", {"script": script, "args": []})

    def click(self, selector: str) -> None:
        """Clicks on the first element that a CSS selector names."""
        find = {"using": "css selector", "value": selector}
        element = self._call("POST", f"{self._session}/element", find)[_ELEMENT]
        self._call("POST", f"{self._session}/element/{element}/click")
