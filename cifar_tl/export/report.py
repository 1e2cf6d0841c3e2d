"""What an export is asked for and what it measured, as plain data: pages and the command line read it without torch. Level 1.

    exports/<kind>/           in the run's folder, written whole or not at all
        report.json           `ExportReport`
        ...                   the files of that kind

A file that does not do what the model does is not offered: `Parity` says by how much one differs.
"""

import json
import math
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from cifar_tl.errors import RunInvalid
from cifar_tl.evaluation.analysis import Proportion
from cifar_tl.paths import RunFolder

REPORT_NAME = "report.json"
# float32 against float32: what differs is the order of additions. Of int8: what a person would still call the same model.
MOST_DIFFERENCE, LEAST_AGREEMENT = 0.01, 0.99
LEAST_INT8_AGREEMENT, MOST_INT8_LOSS = 0.85, 0.05


class Kind(StrEnum):
    """What a model can be exported as; the value names the folder."""

    ONNX = "onnx"
    BUNDLE = "bundle"
    WEB = "web"


@dataclass(frozen=True)
class ExportOptions:
    """How to export. `with_preprocessing`: the file takes stored pixels and gives probabilities, not network input and logits.

    `runtime_folder`: an unpacked npm package of onnxruntime-web that the page is to carry; without it the page fetches its own, pinned.
    """

    kind: Kind
    with_preprocessing: bool = True
    int8: bool = False
    runtime_folder: str = ""


@dataclass(frozen=True)
class Parity:
    """A file's answers beside the model's, on test images. `max_difference` of probabilities; accuracies count right answers."""

    file: str
    precision: str
    images: int
    max_difference: float
    top1_agreement: float
    right: int
    model_right: int
    bytes: int
    images_per_second: float

    @property
    def accuracy(self) -> Proportion:
        return Proportion(self.right, self.images)

    @property
    def model_accuracy(self) -> Proportion:
        return Proportion(self.model_right, self.images)

    @property
    def in_words(self) -> str:
        return (
            f"{self.file} ({self.precision}) beside the trained model, {self.images:,} test images: the same class on {self.top1_agreement:.1%}, "
            f"probabilities differ by at most {self.max_difference:.2g}, {_in_words(self.accuracy)} right, the model {_in_words(self.model_accuracy)}."
        )

    @property
    def problem(self) -> str:
        """Why this file is not offered, in words; empty if it is."""
        if not math.isfinite(self.max_difference):
            return "It gives no numbers."
        if self.precision == "int8":
            loss = (self.model_right - self.right) / max(1, self.images)
            if self.top1_agreement < LEAST_INT8_AGREEMENT or loss > MOST_INT8_LOSS:
                return (
                    f"As int8 it agrees with the model on {self.top1_agreement:.1%} of {self.images:,} test images and gets "
                    f"{self.accuracy.fraction:.1%} right, the model {self.model_accuracy.fraction:.1%}: too far apart to be offered."
                )
        elif self.max_difference > MOST_DIFFERENCE or self.top1_agreement < LEAST_AGREEMENT:
            return (
                f"Its answers differ from the model's: by up to {self.max_difference:.3f} in a probability, and in the class on "
                f"{1 - self.top1_agreement:.1%} of {self.images:,} test images. It is not offered."
            )
        return ""


@dataclass(frozen=True)
class ExportReport:
    """`weights_changed`: of the weights that were exported, in nanoseconds; a run that trains on has others. `refused`: in one line each."""

    kind: Kind
    run_id: str
    weights_changed: int
    files: tuple[str, ...]
    parities: tuple[Parity, ...] = ()
    refused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def _in_words(value: Proportion) -> str:
    low, high = value.interval
    return f"{value.fraction:.1%} ({100 * low:.1f} to {100 * high:.1f})"


def save_report(folder: Path, report: ExportReport) -> None:
    (folder / REPORT_NAME).write_text(json.dumps(asdict(report), indent=2) + "\n", "utf-8")


def load_report(folder: Path) -> ExportReport:
    """Raises FileNotFoundError if nothing was exported there, RunInvalid if the report is damaged."""
    try:
        raw = json.loads((folder / REPORT_NAME).read_text("utf-8"))
        lists = {name: tuple(raw[name]) for name in ("files", "refused", "notes")}
        parities = tuple(Parity(**item) for item in raw["parities"])
        return ExportReport(Kind(raw["kind"]), raw["run_id"], int(raw["weights_changed"]), parities=parities, **lists)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunInvalid(f"{folder / REPORT_NAME} is damaged. Export again.") from error


def export_folder(run: RunFolder, kind: Kind) -> Path:
    return run.exports / kind.value
