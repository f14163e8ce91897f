"""A page as PDF, printed by a browser of the Chromium family that is on the machine; nothing is fetched."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

VARIABLE = "PARALLEL_LAB_BROWSER"
TIMEOUT_S = 300.0
NAMES = (
    *("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"),
    *("microsoft-edge", "microsoft-edge-stable", "msedge", "brave-browser"),
)
_MACOS = ("Google Chrome", "Chromium", "Microsoft Edge", "Brave Browser")


class NoBrowser(OSError):
    """No browser that prints is on this machine, or it did not print."""


def find_browser() -> str:
    """The program: that of the environment variable PARALLEL_LAB_BROWSER, else the first that is found.

    Raises:
        NoBrowser: there is none.
    """
    if chosen := os.environ.get(VARIABLE):
        if found := shutil.which(chosen):
            return found
        raise NoBrowser(f"{VARIABLE} names {chosen!r}, which is no program here")
    apps = [f"/Applications/{name}.app/Contents/MacOS/{name}" for name in _MACOS] if sys.platform == "darwin" else []
    for name in (*NAMES, *apps):
        if found := shutil.which(name):
            return found
    raise NoBrowser(
        "no browser that prints was found (Chromium, Chrome, Edge, Brave): open the HTML in your browser and print it "
        f"to PDF there, or name the program in {VARIABLE}"
    )


def print_pdf(html: str) -> bytes:
    """The page `html` as PDF.

    Raises:
        NoBrowser: no browser is there, or it wrote no PDF.
    """
    browser = find_browser()
    # A profile of its own: one that runs already would take the page over and return at once.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        source, out = Path(folder, "page.html"), Path(folder, "page.pdf")
        source.write_text(html, encoding="utf-8")
        flags = ["--headless", "--disable-gpu", "--no-pdf-header-footer", "--generate-pdf-document-outline"]
        flags += [f"--user-data-dir={folder}/profile", "--no-first-run", f"--print-to-pdf={out}"]
        if sys.platform != "win32" and os.geteuid() == 0:
            flags.append("--no-sandbox")  # a browser of root's has none
        try:
            done = subprocess.run([browser, *flags, source.as_uri()], capture_output=True, timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise NoBrowser(f"{browser} had not printed after {TIMEOUT_S:.0f} s") from None
        if not out.is_file():
            last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
            raise NoBrowser(f"{browser} wrote no PDF: {last[0]}")
        return out.read_bytes()
