"""Which Chromium the browser tests drive: an installed one, else Playwright's own, else Debian's package.

`python tests/browser/chromium.py --install` makes sure that there is one, or says in one line what to do.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str | None:
    """Path of an installed Chromium; $CIFAR_TL_CHROMIUM goes before all."""
    chosen = os.environ.get("CIFAR_TL_CHROMIUM")
    if chosen:
        return chosen
    installed = next((path for name in _NAMES if (path := shutil.which(name))), None)
    return installed or _playwrights_own()


def _playwrights_own() -> str | None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).is_file() else None


def install_chromium() -> str:
    """A Chromium, installed by apt-get if there is none and we may. Exits with one clear line otherwise."""
    found = find_chromium()
    if found:
        return found
    if shutil.which("apt-get") and os.geteuid() == 0:
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium", "fonts-liberation"], check=True)
        found = find_chromium()
    if not found:
        sys.exit(
            "error: the browser tests need a Chromium. Install one (Debian: apt-get install chromium; any system: "
            ".venv/bin/playwright install chromium) or name one in CIFAR_TL_CHROMIUM."
        )
    return found


if __name__ == "__main__":
    sys.stdout.write(f"Chromium: {install_chromium() if '--install' in sys.argv[1:] else find_chromium()}\n")
