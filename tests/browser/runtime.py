"""The onnxruntime-web that exported pages are tested with: the npm package of the pinned version, unpacked once into a cache.

`python tests/browser/runtime.py --install` makes sure that it is there, or says in one line what to do. Its bytes are checked by
`cifar_tl.export.web_page` whenever a page is written.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run as a script, for its folder alone is on the path

from cifar_tl.export.web_page import RUNTIME_FILES, RUNTIME_VERSION, read_runtime


def runtime_folder() -> Path:
    """$CIFAR_TL_ONNXRUNTIME_WEB goes before the cache."""
    chosen = os.environ.get("CIFAR_TL_ONNXRUNTIME_WEB")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(chosen) if chosen else cache / "cifar_tl_tests" / f"onnxruntime-web-{RUNTIME_VERSION}"


def install_runtime() -> Path:
    """Exits with one clear line if it cannot be had."""
    folder = runtime_folder()
    if all((folder / name).is_file() for name in RUNTIME_FILES):
        return folder
    npm = shutil.which("npm")
    if npm is None and shutil.which("apt-get") and os.geteuid() == 0:
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "npm"], check=True)
        npm = shutil.which("npm")
    if npm is None:
        sys.exit("error: the tests of exported pages need npm, which fetches onnxruntime-web, or its folder in CIFAR_TL_ONNXRUNTIME_WEB.")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        subprocess.run([npm, "pack", "--silent", f"onnxruntime-web@{RUNTIME_VERSION}"], cwd=place, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(place).glob("*.tgz")
        with tarfile.open(archive) as opened:
            for name in RUNTIME_FILES:
                member = opened.extractfile(f"package/dist/{name}")
                assert member is not None
                with member, (Path(place) / name).open("wb") as target:
                    shutil.copyfileobj(member, target)
        for name in RUNTIME_FILES:
            shutil.move(Path(place) / name, folder / name)
    read_runtime(folder)
    return folder


if __name__ == "__main__":
    sys.stdout.write(f"onnxruntime-web: {install_runtime() if '--install' in sys.argv[1:] else runtime_folder()}\n")
