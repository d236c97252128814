"""A headless Chromium for tests, and what it tells of a page."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # as root Chromium has none
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)


@contextlib.contextmanager
def browser() -> Iterator[webdriver.Chrome]:
    """A browser with a profile of its own that logs every request. Skips where there is none."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no chromium and chromedriver here (Debian: chromium chromium-driver)")
    with tempfile.TemporaryDirectory(prefix="livetrain-chromium-", ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        window = webdriver.Chrome(options=options, service=Service(driver))
        try:
            yield window
        finally:
            window.quit()


def resize(window: webdriver.Chrome, width: int, height: int = 900) -> None:
    """The page's own width in CSS pixels, also below what a window may have."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def requests(window: webdriver.Chrome) -> list[str]:
    """The addresses asked for since the last call."""
    found = []
    for entry in window.get_log("performance"):
        message: dict[str, Any] = json.loads(entry["message"])["message"]
        if message["method"] in ("Network.requestWillBeSent", "Network.webSocketCreated"):
            found.append(message["params"].get("request", message["params"])["url"])
    return found


def screenshot(window: webdriver.Chrome, path: Path) -> bytes:
    """The whole page as PNG, written to `path` too."""
    options = {"format": "png", "captureBeyondViewport": True}
    data = base64.b64decode(window.execute_cdp_cmd("Page.captureScreenshot", options)["data"])
    path.write_bytes(data)
    return data


def pdf(window: webdriver.Chrome) -> bytes:
    """The page as it is printed on A4."""
    options = {"printBackground": False, "paperWidth": 8.27, "paperHeight": 11.69}
    return base64.b64decode(window.execute_cdp_cmd("Page.printToPDF", options)["data"])
