"""What the tests of widgets written in JavaScript share: a browser."""

import shutil

import pytest


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium is not installed")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with playwright.sync_playwright() as tool:
        opened = tool.chromium.launch(executable_path=path, args=flags)
        yield opened
        opened.close()
