"""The model card of an exported run, in the form that Hugging Face reads: facts as YAML, then what a person should know. Level 1.

Every number comes from the run's stored answers; what is not known is left out, never guessed.
"""

import json
from collections.abc import Iterable

import numpy as np

from cifar_tl.config import RunConfig
from cifar_tl.errors import CifarTLError
from cifar_tl.evaluation.analysis import Proportion, accuracy, confusion_matrix, most_confused_pairs, per_class, top_k_accuracy
from cifar_tl.evaluation.arrays import Evaluation, load_evaluation
from cifar_tl.evaluation.calibration import reliability, scores
from cifar_tl.export.report import Parity
from cifar_tl.paths import RunFolder
from cifar_tl.runs.annotations import read_annotations
from cifar_tl.runs.store import RunManifest
from cifar_tl.settings import settings

_WORST = 5
_SMALL_PIXELS = 64


def model_card(
    folder: RunFolder, config: RunConfig, manifest: RunManifest, *, library: str, architecture: str, temperature: float, parity: Parity
) -> str:
    """README.md of a bundle."""
    found = {split: _answers(folder, split) for split in ("train", "dev", "test")}
    test = found["test"]
    name = read_annotations(folder).name or manifest.run_id
    parts = [
        _front(config, manifest, name, library, architecture, None if test is None else accuracy(test)),
        f"# {name}",
        f"{architecture} ({library}), fine-tuned on {manifest.data_title} to tell {len(manifest.class_names)} classes apart.",
        f"## Use\n\n    pip install {library} torch torchvision pillow\n    python predict.py photo.jpg",
        _about_data(config, manifest, found),
        _about_accuracy(found, manifest, temperature),
        _about_settings(config),
        _limits(manifest, test),
        f"## Check\n\n{parity.in_words}\n",
    ]
    return "\n\n".join(part for part in parts if part)


def _front(config: RunConfig, manifest: RunManifest, name: str, library: str, architecture: str, test: Proportion | None) -> str:
    base = f"timm/{architecture}" if library == "timm" else f"torchvision/{architecture}"
    data = "cifar100" if config.source == "cifar100" else "cifar10" if config.source == "cifar10" else ""
    lines = [
        "---",
        f"library_name: {library}",
        "pipeline_tag: image-classification",
        "tags:",
        *(f"- {tag}" for tag in ("image-classification", "transfer-learning", library)),
        f"base_model: {base}",
        *(["datasets:", f"- uoft-cs/{data}"] if data else []),
        "metrics:",
        "- accuracy",
    ]
    if test is not None:
        lines += [
            "model-index:",
            f"- name: {json.dumps(name)}",
            "  results:",
            "  - task:",
            "      type: image-classification",
            "    dataset:",
            f"      name: {json.dumps(manifest.data_title)}",
            f"      type: {data or 'custom'}",
            "      split: test",
            "    metrics:",
            "    - type: accuracy",
            f"      value: {test.fraction:.4f}",
        ]
    return "\n".join([*lines, "---"])


def _about_data(config: RunConfig, manifest: RunManifest, found: dict[str, Evaluation | None]) -> str:
    counts = [f"{len(answers):,} {split}" for split, answers in found.items() if answers is not None and split != "train"]
    corrected = f" Labels were corrected (version {manifest.corrections})." if manifest.corrections else ""
    limited = f" {config.images_per_class} training images a class." if config.images_per_class else ""
    side = manifest.preprocessing.store_resolution
    return (
        f"## Data\n\n{manifest.data_title}, images of {side} x {side} pixels ({' and '.join(counts) or 'not evaluated'}).{limited}{corrected} "
        f"Fingerprint of the data: `{manifest.data_fingerprint}`. The classes are in `classes.txt`, in the order of the outputs."
    )


def _about_accuracy(found: dict[str, Evaluation | None], manifest: RunManifest, temperature: float) -> str:
    rows = [
        f"| {split} | {len(answers):,} | {_proportion(accuracy(answers))} | {_proportion(top_k_accuracy(answers, 5))} |"
        for split, answers in found.items()
        if answers is not None
    ]
    if not rows:
        return ""
    table = "\n".join(["| split | images | accuracy | top-5 |", "| --- | ---: | ---: | ---: |", *rows])
    text = f"## Accuracy\n\nWith 95 % intervals (Wilson). The run chose its weights by dev.\n\n{table}"
    test = found["test"]
    if test is None:
        return text
    is_right_N = test.predictions_N == test.labels_N
    before = reliability(test.confidences_N, is_right_N).expected_error
    after = reliability(scores(test, temperature).confidences_N, is_right_N).expected_error
    calibration = f"Expected calibration error on test: {before:.1%} as trained, {after:.1%} divided by the temperature {temperature:.2f}"
    calibration += ", which `predict.py` does." if temperature != 1 else " (none was fitted)."
    return f"{text}\n\n{calibration}\n\n{_weak_points(test, manifest.class_names)}"


def _weak_points(test: Evaluation, names: tuple[str, ...]) -> str:
    matrix_CC = confusion_matrix(test.labels_N, test.predictions_N, len(names))
    worst = sorted((score for score in per_class(matrix_CC) if score.support), key=lambda score: score.recall)[:_WORST]
    lines = [f"- {names[score.index]}: {_interval(score.recall, score.recall_interval)} of {score.support} found" for score in worst]
    pairs = [f"- {names[pair.true]} taken for {names[pair.predicted]}: {pair.share:.0%}" for pair in most_confused_pairs(matrix_CC, _WORST)]
    return "Weakest classes:\n\n" + "\n".join(lines) + "\n\nMost confused:\n\n" + "\n".join(pairs or ["- none"])


def _about_settings(config: RunConfig) -> str:
    rows = [f"| {item.title} | {_shown(getattr(config, item.name))} |" for item in settings() if item.name not in ("name", "device")]
    return "## Settings\n\n| setting | value |\n| --- | --- |\n" + "\n".join(rows)


def _limits(manifest: RunManifest, test: Evaluation | None) -> str:
    side = manifest.preprocessing.store_resolution
    lines = [
        f"It answers with one of {len(manifest.class_names)} classes for any picture, also for one that shows none of them.",
        "Accuracy holds for pictures like those of the data set; for photos of other places, cameras and styles it is not known.",
    ]
    if side <= _SMALL_PIXELS:
        lines.append(f"It learned from {side} x {side} pixels, and a photo is made as small before it is looked at: details are lost.")
    if test is None:
        lines.append("It has not been evaluated on test images.")
    lines.append("Nobody has examined it for biases. Do not let it decide about people.")
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _answers(folder: RunFolder, split: str) -> Evaluation | None:
    try:
        return load_evaluation(folder.evaluation_of(split))
    except (CifarTLError, FileNotFoundError):
        return None


def _proportion(value: Proportion) -> str:
    return _interval(value.fraction, value.interval)


def _interval(fraction: float, interval: tuple[float, float]) -> str:
    if np.isnan(fraction):
        return ""
    return f"{fraction:.1%} ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"


def _shown(value: object) -> str:
    if isinstance(value, str):
        return value or "-"
    if isinstance(value, Iterable):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None else str(value)
