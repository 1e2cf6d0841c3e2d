"""export_run: makes of a run's model what runs elsewhere, checks that it answers as the model does, and offers only what does.

Needs the run's data: a file that was never compared with the model is not handed out. Called by the command line and, in a process of
its own, by the dashboard (`python -m cifar_tl export`).
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from cifar_tl.data.batches import to_model_input
from cifar_tl.data.sources import Progress
from cifar_tl.errors import CifarTLError, RunInvalid
from cifar_tl.evaluation.evaluate import Reopened, reopen
from cifar_tl.export import bundle, onnx_file
from cifar_tl.export.network import Exportable
from cifar_tl.export.onnx_readme import onnx_readme
from cifar_tl.export.report import REPORT_NAME, ExportOptions, ExportReport, Kind, Parity, export_folder, save_report
from cifar_tl.export.web_page import write_page
from cifar_tl.paths import RunFolder

PARITY_IMAGES = 200
INT8_IMAGES = 1_000  # int8 differs on purpose, so its accuracy needs more images to be told
_CALIBRATION_IMAGES = 512
_CALIBRATION_BATCH = 32
ONNX_NAME, INT8_NAME = "model.onnx", "model.int8.onnx"

Tell = Callable[[Progress], None]


def export_run(folder: RunFolder, options: ExportOptions, *, progress: Tell, target: Path | None = None) -> ExportReport:
    """Into `target`, by default the run's own folder for exports. What was there of that kind gives way once the new one is whole.

    Raises RunInvalid (no weights, other data), DataError (the data cannot be had), CifarTLError where nothing can be offered.
    """
    target = target or export_folder(folder, options.kind)
    with _writing(target) as working:
        reopened = reopen(folder, progress=progress)
        exporter = _Exporter(Exportable.from_run(folder, reopened.predictor.temperature), reopened, working, progress)
        report = exporter.export(options)
        save_report(working, report)
        return report


class _Exporter:
    def __init__(self, exportable: Exportable, reopened: Reopened, folder: Path, progress: Tell) -> None:
        self._exportable, self._reopened, self._folder, self._progress = exportable, reopened, folder, progress
        self._parities: list[Parity] = []
        self._refused: list[str] = []
        self._known: dict[int, np.ndarray] = {}

    def export(self, options: ExportOptions) -> ExportReport:
        write = {Kind.ONNX: self._onnx, Kind.BUNDLE: self._bundle, Kind.WEB: self._web}[options.kind]
        write(options)
        if self._refused and not self._parities:
            raise CifarTLError(" ".join(self._refused))
        run = self._exportable.folder
        files = sorted(file.name for file in self._folder.iterdir())
        weights_changed = run.best_weights.stat().st_mtime_ns
        return ExportReport(options.kind, run.run_id, weights_changed, tuple(files), tuple(self._parities), tuple(self._refused))

    def _onnx(self, options: ExportOptions) -> None:
        path = self._folder / ONNX_NAME
        self._tell("Writing the ONNX file")
        onnx_file.write_onnx(self._exportable, path, with_preprocessing=options.with_preprocessing)
        self._check(path, options, "float32", PARITY_IMAGES)
        if options.int8 and path.exists():
            self._int8(path, options)
        names = "\n".join(self._exportable.manifest.class_names)
        (self._folder / "classes.txt").write_text(f"{names}\n", "utf-8")
        (self._folder / "README.md").write_text(onnx_readme(self._exportable, self._parities, options, self._refused), "utf-8")

    def _int8(self, path: Path, options: ExportOptions) -> None:
        self._tell("Reducing weights and activations to 8 bits")
        small = self._folder / INT8_NAME
        train = self._reopened.splits.train
        rows = np.random.default_rng(0).permutation(len(train))[:_CALIBRATION_IMAGES]
        squares = self._reopened.store[train.store_split].images_NHWC[np.sort(train.rows[rows])]
        inputs = self._inputs(np.asarray(squares), options)
        onnx_file.quantize(path, small, (inputs[at : at + _CALIBRATION_BATCH] for at in range(0, len(inputs), _CALIBRATION_BATCH)))
        self._parities.clear()  # measured anew on more images, so that both are measured alike, one after the other
        self._check(path, options, "float32", INT8_IMAGES)
        self._check(small, options, "int8", INT8_IMAGES)

    def _bundle(self, _options: ExportOptions) -> None:
        self._tell("Writing the weights by their library's names")
        original = bundle.write_weights(self._exportable, self._folder)
        squares, labels = self._test(PARITY_IMAGES)
        self._tell("Comparing with the model")
        answers = bundle.answers_of(original, self._exportable, squares)
        parity = self._parity(self._folder / bundle.WEIGHTS, "float32", answers, squares, labels, 0.0)
        self._take(parity, self._folder / bundle.WEIGHTS)
        if parity in self._parities:
            bundle.write_card(self._exportable, original, parity, self._folder)

    def _web(self, options: ExportOptions) -> None:
        self._tell("Writing the ONNX file")
        path = self._folder / ONNX_NAME
        onnx_file.write_onnx(self._exportable, path, with_preprocessing=True)
        self._check(path, options, "float32", PARITY_IMAGES)
        if path.exists():
            write_page(self._exportable, path, self._folder / "index.html", runtime_folder=options.runtime_folder)
            path.unlink()

    def _check(self, path: Path, options: ExportOptions, precision: str, images: int) -> None:
        """Compare a file with the model; one that differs is removed."""
        self._tell(f"Comparing {path.name} with the model")
        squares, labels = self._test(images)
        answers, speed = self._answers(onnx_file.OnnxModel(path), squares, options)
        self._take(self._parity(path, precision, answers, squares, labels, speed), path)

    def _answers(self, model: onnx_file.OnnxModel, squares: np.ndarray, options: ExportOptions) -> tuple[np.ndarray, float]:
        """(probabilities N x C, images a second). What is not inside the graph is done outside of it."""
        inputs = self._inputs(squares, options)
        outputs, speed = model.of_all(inputs)
        if options.with_preprocessing:
            return outputs, speed
        if self._exportable.config.average_flips:
            outputs = (outputs + model.of_all(np.ascontiguousarray(inputs[..., ::-1]))[0]) / 2
        return torch.from_numpy(outputs / self._exportable.temperature).softmax(1).numpy(), speed

    def _parity(self, path: Path, precision: str, answers: np.ndarray, squares: np.ndarray, labels: np.ndarray, speed: float) -> Parity:
        expected = self._expected(squares)
        return Parity(
            path.name,
            precision,
            len(labels),
            float(np.abs(answers - expected).max()),
            float((answers.argmax(1) == expected.argmax(1)).mean()),
            int((answers.argmax(1) == labels).sum()),
            int((expected.argmax(1) == labels).sum()),
            path.stat().st_size,
            speed,
        )

    def _take(self, parity: Parity, path: Path) -> None:
        if parity.problem:
            self._refused.append(f"{parity.file}: {parity.problem}")
            path.unlink()
        else:
            self._parities.append(parity)

    def _test(self, images: int) -> tuple[np.ndarray, np.ndarray]:
        """(uint8 squares, labels) of test, evenly spaced, so that all classes are among them."""
        test = self._reopened.splits.test
        rows = np.linspace(0, len(test) - 1, min(images, len(test))).astype(np.int64)
        if not len(rows):
            raise RunInvalid("The data has no test images, so no exported file can be compared with the model.")
        return np.asarray(self._reopened.store[test.store_split].images_NHWC[test.rows[rows]]), test.labels[rows]

    def _expected(self, squares: np.ndarray) -> np.ndarray:
        if len(squares) not in self._known:
            self._known[len(squares)] = self._exportable.probabilities(squares)
        return self._known[len(squares)]

    def _inputs(self, squares: np.ndarray, options: ExportOptions) -> np.ndarray:
        if options.with_preprocessing:
            return squares
        return to_model_input(torch.from_numpy(squares).permute(0, 3, 1, 2), self._exportable.manifest.preprocessing).contiguous().numpy()

    def _tell(self, phase: str) -> None:
        self._progress(Progress(phase, 0, 0, ""))


@contextmanager
def _writing(target: Path) -> Iterator[Path]:
    """A folder to write into, which takes the place of `target` if all goes well and is gone if not. Raises RunInvalid."""
    if target.exists() and not (target / REPORT_NAME).is_file():
        raise RunInvalid(f"{target} is there already and is no export. Name another folder.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent, ignore_cleanup_errors=True) as folder:
            working = Path(folder) / target.name
            working.mkdir()
            yield working
            if target.exists():
                target.replace(Path(folder) / "before")
            working.replace(target)
    except OSError as error:
        raise RunInvalid(f"{target} cannot be written: {error.strerror or error}.") from error
