"""write_page: one .html that answers for photos in the browser, with the model inside and no server.

What runs the model is onnxruntime-web. Without `runtime_folder` the page fetches it from a public mirror of npm packages and refuses
other bytes than those that were tested; with it (an unpacked npm package of that version) the page carries it and needs no network.
The page's policy lets it send nothing anywhere.

Owns `page.html`, `page.css`, `page.js`, which is Pillow's resizing and the drawing of answers.
"""

import base64
import gzip
import hashlib
import html
import json
from pathlib import Path
from string import Template

from cifar_tl.data.bottleneck import reducer
from cifar_tl.errors import RunInvalid, SettingsError
from cifar_tl.evaluation.analysis import accuracy
from cifar_tl.evaluation.arrays import load_evaluation
from cifar_tl.export.network import Exportable
from cifar_tl.runs.annotations import read_annotations

RUNTIME_VERSION = "1.30.0"
_MIRROR = f"https://cdn.jsdelivr.net/npm/onnxruntime-web@{RUNTIME_VERSION}/dist"
# Name in the page -> file of the package, its subresource integrity (of version `RUNTIME_VERSION`).
_RUNTIME = {
    "script": ("ort.wasm.bundle.min.mjs", "sha384-PLWz+nHEVHpjwBsO0YVdvQj6n5814Iv8E3b8FG0Rp/uIAtjFMCKOpP66iPzedrIG"),
    "wasm": ("ort-wasm-simd-threaded.wasm", "sha384-vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75JparGq9kB+kTnEUNVM"),
}
RUNTIME_FILES = tuple(file for file, _ in _RUNTIME.values())
_DIGITS = 6
_MOST_REDUCERS = 64  # of so few stored pixels all reducers fit; more are those of folders, which have none


def write_page(exportable: Exportable, model: Path, target: Path, *, runtime_folder: str = "") -> None:
    """`model` is an ONNX file with its preprocessing inside. Raises SettingsError if `runtime_folder` is not the runtime that was tested."""
    blocks = {"model": _packed(model.read_bytes())}
    if runtime_folder:
        blocks |= {name: _packed(content) for name, content in read_runtime(Path(runtime_folder)).items()}
    folder = Path(__file__).parent
    facts = json.dumps(_facts(exportable)).replace("<", "\\u003c")
    data = [f'<script type="application/json" id="facts">{facts}</script>']
    data += [f'<script type="text/plain" id="{name}">{text}</script>' for name, text in blocks.items()]
    page = Template((folder / "page.html").read_text("utf-8")).substitute(
        policy=_policy(is_offline=bool(runtime_folder)),
        title=html.escape(read_annotations(exportable.folder).name or exportable.manifest.data_title),
        about=html.escape(_about(exportable)),
        footer=html.escape(_footer(exportable)),
        css=(folder / "page.css").read_text("utf-8"),
        js=(folder / "page.js").read_text("utf-8"),
        data="\n".join(data),
    )
    target.write_text(page, "utf-8")


def read_runtime(folder: Path) -> dict[str, bytes]:
    """The files of the runtime from an unpacked npm package, or from its dist folder. Raises SettingsError."""
    found = {}
    for name, (file, integrity) in _RUNTIME.items():
        path = next(
            (place for place in (folder / file, folder / "dist" / file, folder / "package" / "dist" / file) if place.is_file()), None
        )
        if path is None:
            raise SettingsError(f"There is no {file} in {folder}: it must be the unpacked npm package onnxruntime-web {RUNTIME_VERSION}.")
        found[name] = path.read_bytes()
        digest = base64.b64encode(hashlib.sha384(found[name]).digest()).decode()
        if f"sha384-{digest}" != integrity:
            raise SettingsError(f"{path} is not that of onnxruntime-web {RUNTIME_VERSION}, the version that was tested.")
    return found


def _facts(exportable: Exportable) -> dict[str, object]:
    few, times = exportable.manifest.preprocessing.store_resolution, exportable.reduced_from
    sizes = range(few + 1, times * few + 1) if few <= _MOST_REDUCERS else ()
    return {
        "classes": exportable.manifest.class_names,
        "stored_pixels": few,
        "reduced_from": times,
        "reducers": {str(many): [round(float(value), _DIGITS) for value in reducer(many, few).ravel()] for many in sizes},
        "runtime": {name: {"url": f"{_MIRROR}/{file}", "integrity": integrity} for name, (file, integrity) in _RUNTIME.items()},
    }


def _packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()


def _policy(*, is_offline: bool) -> str:
    """Scripts of this page and WebAssembly alone; nothing to be fetched but, where it is not inside, the runtime."""
    fetched = "'none'" if is_offline else _MIRROR.rsplit("/", 1)[0] + "/"
    return (
        "default-src 'none'; script-src 'unsafe-inline' 'wasm-unsafe-eval' blob:; style-src 'unsafe-inline'; img-src blob: data:; "
        f"connect-src {fetched}"
    )


def _about(exportable: Exportable) -> str:
    config, manifest = exportable.config, exportable.manifest
    text = f"{config.backbone}, fine-tuned on {manifest.data_title}, tells {len(manifest.class_names)} classes apart."
    try:
        found = accuracy(load_evaluation(exportable.folder.evaluation_of("test")))
    except (FileNotFoundError, RunInvalid):  # then nothing is claimed
        return text
    low, high = found.interval
    return (
        f"{text} On {found.total:,} test images it is right in {found.fraction:.1%} (95 % interval {100 * low:.1f} to {100 * high:.1f} %)."
    )


def _footer(exportable: Exportable) -> str:
    side = exportable.manifest.preprocessing.store_resolution
    return (
        f"It answers with one of its classes for any picture, also for one that shows none of them. It looks at the middle of a photo, at "
        f"{side} x {side} pixels. Run {exportable.manifest.run_id}."
    )
