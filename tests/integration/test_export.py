"""Exports of a trained run: each is used as a stranger would use it, and must answer as the run does."""

import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from safetensors import safe_open

from cifar_tl.__main__ import main
from cifar_tl.data.progress import tell_nobody
from cifar_tl.data.sources import prepare
from cifar_tl.errors import CifarTLError, RunInvalid, SettingsError
from cifar_tl.export import report as export_report
from cifar_tl.export.network import Exportable
from cifar_tl.export.report import ExportOptions, Kind, Parity, export_folder, load_report
from cifar_tl.export.run import PARITY_IMAGES, export_run
from cifar_tl.export.web_page import read_runtime
from cifar_tl.inference import Predictor
from cifar_tl.paths import RunFolder
from tests.integration.test_training import run, small

SIZE = 64
TOP = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    config = small(image_size=SIZE, images_per_class=20, epochs=3, average_flips=True, trainable="head", precision="float32")
    return run(config, tmp_path_factory.mktemp("export"))[2]


@pytest.fixture
def expected(folder: RunFolder) -> Exportable:
    return Exportable.from_run(folder, Predictor.from_run(folder.path).temperature)


def squares(count: int) -> np.ndarray:
    return np.array(prepare("shapes")["test"].images_NHWC[:count])


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def export(folder: RunFolder, target: Path, kind: Kind, **options: object) -> export_report.ExportReport:
    return export_run(folder, ExportOptions(kind, **options), progress=tell_nobody, target=target)  # type: ignore[arg-type]


def test_an_onnx_file_takes_pixels_in_any_number_and_answers_as_the_run(folder, expected, tmp_path):
    found = export(folder, tmp_path / "onnx", Kind.ONNX)
    (parity,) = found.parities
    assert (parity.images, parity.precision, parity.file) == (PARITY_IMAGES, "float32", "model.onnx")
    assert parity.max_difference < 1e-4
    assert parity.top1_agreement == 1.0
    assert load_report(tmp_path / "onnx") == found
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "model.onnx")
    for count in (1, 7):
        answers = session.run(None, {"pixels": squares(count)})[0]
        assert np.abs(answers - expected.probabilities(squares(count))).max() < 1e-3
    classes = (tmp_path / "onnx" / "classes.txt").read_text().splitlines()
    assert tuple(classes) == expected.manifest.class_names
    assert f"{parity.accuracy.fraction:.1%}" in (tmp_path / "onnx" / "README.md").read_text()


def test_without_preprocessing_it_takes_what_the_network_takes(folder, expected, tmp_path):
    import torch

    from cifar_tl.data.batches import to_model_input

    (parity,) = export(folder, tmp_path / "bare", Kind.ONNX, with_preprocessing=False).parities
    assert parity.max_difference < 1e-3
    session = onnxruntime.InferenceSession(tmp_path / "bare" / "model.onnx")
    assert session.get_modelmeta().custom_metadata_map["classes"].splitlines() == list(expected.manifest.class_names)
    images = to_model_input(torch.from_numpy(squares(3)).permute(0, 3, 1, 2), expected.manifest.preprocessing).contiguous()
    logits = session.run(["logits"], {"images": images.numpy()})[0]
    with torch.inference_mode():
        assert np.abs(logits - expected.classifier(images).numpy()).max() < 1e-3


def test_eight_bits_are_measured_beside_float32_and_nearly_as_right(folder, tmp_path):
    found = export(folder, tmp_path / "int8", Kind.ONNX, int8=True)
    float32, int8 = found.parities
    assert (float32.precision, int8.precision) == ("float32", "int8")
    assert float32.images == int8.images == 1_000
    assert int8.top1_agreement > 0.9
    assert int8.bytes < float32.bytes / 3
    assert int8.images_per_second > 0
    assert (tmp_path / "int8" / "model.int8.onnx").exists()
    assert "prepared" not in " ".join(names_in(tmp_path / "int8"))


def test_a_file_that_answers_otherwise_is_not_offered_and_the_one_before_stays(folder, tmp_path, monkeypatch):
    export(folder, tmp_path / "onnx", Kind.ONNX)
    before = (tmp_path / "onnx" / "model.onnx").read_bytes()
    monkeypatch.setattr(export_report, "MOST_DIFFERENCE", -1.0)
    with pytest.raises(CifarTLError, match=r"model\.onnx: Its answers differ from the model's"):
        export(folder, tmp_path / "onnx", Kind.ONNX)
    assert (tmp_path / "onnx" / "model.onnx").read_bytes() == before
    assert names_in(tmp_path) == ["onnx"]


@pytest.mark.parametrize(("change", "words"), [
    ({"max_difference": 0.02}, "by up to 0.020"),
    ({"top1_agreement": 0.98}, "on 2.0% of 200"),
    ({"max_difference": float("nan")}, "no numbers"),
    ({"precision": "int8", "top1_agreement": 0.8}, "agrees with the model on 80.0%"),
    ({"precision": "int8", "top1_agreement": 0.9, "right": 150}, "too far apart"),
    ({"precision": "int8", "top1_agreement": 0.9, "max_difference": 0.5}, ""),
    ({}, ""),
])  # fmt: skip
def test_when_a_file_is_refused(change, words):
    parity = Parity("model.onnx", "float32", 200, 0.001, 1.0, 170, 170, 10, 5.0)
    problem = replace(parity, **change).problem
    assert words in problem
    assert bool(words) == bool(problem)


def test_the_bundle_answers_in_a_clean_folder_without_the_program(folder, expected, tmp_path):
    bundle, photos_folder = tmp_path / "bundle", tmp_path / "photos"
    photos_folder.mkdir()
    (parity,) = export(folder, bundle, Kind.BUNDLE).parities
    assert parity.max_difference < 1e-5
    predictor = Predictor.from_run(folder.path)
    rows = np.random.default_rng(0).normal(128, 60, (200, 140, 3)).clip(0, 255).astype(np.uint8)
    photos = {
        "stored.png": Image.fromarray(squares(1)[0]),
        "larger.png": Image.fromarray(squares(2)[1]).resize((256, 256), Image.Resampling.BICUBIC),
        "noise.png": Image.fromarray(rows),
        "small.png": Image.fromarray(squares(3)[2]).resize((40, 50), Image.Resampling.BICUBIC),
        "tiny.png": Image.fromarray(squares(3)[2]).resize((20, 20), Image.Resampling.BICUBIC),
    }
    for name, photo in photos.items():
        photo.save(photos_folder / name)
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "CIFAR_TL"))}
        output = subprocess.run(
            [sys.executable, "-W", "ignore", bundle / "predict.py", name],
            cwd=photos_folder,
            env=clean,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert output.returncode == 0, output.stderr
        lines = [line.split("%", 1) for line in output.stdout.splitlines()]
        square = predictor.square((photos_folder / name).read_bytes())
        probabilities = expected.probabilities(square[None])[0]
        best = np.argsort(-probabilities, kind="stable")[:TOP]
        assert [line[1].strip() for line in lines] == [expected.manifest.class_names[index] for index in best], name
        assert [float(line[0]) for line in lines] == pytest.approx([100 * probabilities[index] for index in best], abs=0.3)
    assert "cifar_tl" not in (bundle / "predict.py").read_text()


def test_the_bundle_says_what_the_model_is(folder, expected, tmp_path):
    export(folder, tmp_path / "bundle", Kind.BUNDLE)
    card = (tmp_path / "bundle" / "README.md").read_text()
    front = card.split("---")[1]
    assert "library_name: timm" in front
    assert "base_model: timm/tf_efficientnet_lite0" in front
    assert re.search(r"\| test \| 1,000 \| \d+\.\d% \(\d+\.\d to \d+\.\d\)", card)
    for heading in ("## Use", "## Data", "## Accuracy", "## Settings", "## Limits", "## Check"):
        assert heading in card
    assert json.loads((tmp_path / "bundle" / "run.json").read_text())["run_id"] == expected.manifest.run_id
    with safe_open(tmp_path / "bundle" / "model.safetensors", "pt") as file:
        assert "classifier.weight" in file.keys()  # noqa: SIM118 - it is no mapping
        assert all(file.get_tensor(name).dtype.is_floating_point for name in file.keys())  # noqa: SIM118
    script = (tmp_path / "bundle" / "predict.py").read_text().splitlines()
    statements = [line for line in script if line and not line.startswith(("import", "from", '"""'))]
    assert len(statements) <= 20


def test_the_command_exports_into_the_runs_own_folder(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CIFAR_TL_CHECKPOINTS", str(folder.path.parent))
    assert main(["export", folder.run_id, "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert Path(said["folder"]) == export_folder(folder, Kind.ONNX)
    assert said["files"] == ["README.md", "classes.txt", "model.onnx"]
    assert (folder.exports / "onnx" / "model.onnx").is_file()


def test_another_folder_is_never_overwritten(folder, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(RunInvalid, match="is no export"):
        export(folder, tmp_path / "mine", Kind.ONNX)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_a_runtime_that_was_not_tested_is_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"There is no ort\.wasm"):
        read_runtime(tmp_path)
    for name in ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"):
        (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(SettingsError, match="the version that was tested"):
        read_runtime(tmp_path)


def test_a_page_without_the_runtime_inside_says_where_it_is_and_what_its_bytes_are(folder, tmp_path):
    export(folder, tmp_path / "web", Kind.WEB)
    page = (tmp_path / "web" / "index.html").read_text()
    facts = json.loads(re.search(r'id="facts">(.*?)</script>', page).group(1))  # type: ignore[union-attr]
    assert {item["integrity"][:7] for item in facts["runtime"].values()} == {"sha384-"}
    assert all(re.match(r"https://.*@\d+\.\d+\.\d+/", item["url"]) for item in facts["runtime"].values())
    assert "connect-src https://" in page
    assert names_in(tmp_path / "web") == ["index.html", "report.json"]


def test_a_damaged_report_is_one_line(tmp_path):
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(RunInvalid, match=r"damaged\. Export again"):
        load_report(tmp_path)


def test_a_class_name_cannot_end_the_pages_script(folder, expected, tmp_path):
    from cifar_tl.export.web_page import write_page

    evil = "</script><script>alert(1)</script>"
    manifest = replace(expected.manifest, class_names=(evil, *expected.manifest.class_names[1:]))
    (tmp_path / "model").write_bytes(io.BytesIO(b"model").getvalue())
    expected.manifest = manifest
    write_page(expected, tmp_path / "model", tmp_path / "index.html")
    page = (tmp_path / "index.html").read_text()
    assert evil not in page
    assert "\\u003c/script>" in page
