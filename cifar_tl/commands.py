"""What the commands of the command line do. Grammar and exit codes are in `cifar_tl.__main__`.

Results go to standard output, progress to standard error; with `--json` the last line of standard output is one JSON object.
torch is imported by the commands that need it, so that `runs` and `stop` answer at once.
"""

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cifar_tl import advice_commands, sweep_commands
from cifar_tl.answers import Answer, Asked, Framing
from cifar_tl.config import RunConfig, make_config
from cifar_tl.data import sources
from cifar_tl.errors import ImageUnreadable, RunInvalid, SettingsError
from cifar_tl.evaluation.embeddings import is_described, load_embeddings, load_map
from cifar_tl.export.report import ExportOptions, Kind, export_folder
from cifar_tl.models import catalog
from cifar_tl.paths import RunFolder
from cifar_tl.presets import preset
from cifar_tl.runs import hold, launcher, store
from cifar_tl.runs import pack as run_pack
from cifar_tl.runs import queue as run_queue
from cifar_tl.runs.events import Completed, Failed
from cifar_tl.runs.history import RunHistory
from cifar_tl.runs.summary import RunSummary, summarize
from cifar_tl.settings import settings
from cifar_tl.terminal import PhaseBar, RunBar

_POLL_SECONDS = 0.2
_SECONDS_TO_DESCRIBE = 3600.0  # how long a second process waits for the first


def run(options: argparse.Namespace) -> int:
    """Carry out one parsed command; returns the exit code. Raises CifarTLError."""
    name = f"data_{options.action}" if options.command == "data" else options.command
    return {
        "data_prepare": data_prepare,
        "train": train,
        "sweep": lambda options: sweep_commands.sweep(options, _config_from(options)),
        "sweeps": sweep_commands.sweeps,
        "advise": lambda options: advice_commands.advise(options, _config_from(options)),
        "lr-range": lambda options: advice_commands.lr_range(options, _config_from(options)),
        "resume": resume,
        "queue": queue,
        "runs": runs,
        "stop": stop,
        "predict": predict,
        "evaluate": evaluate,
        "describe": describe,
        "audit": audit,
        "export": export,
        "shrink": shrink,
        "pack": pack,
        "unpack": unpack,
    }[name](options)


def data_prepare(options: argparse.Namespace) -> int:
    with PhaseBar() as bar:
        prepared = sources.prepare(options.source, store_resolution=options.store_resolution, seed=options.seed, progress=bar.show)
    info = prepared.info
    sizes = ", ".join(f"{size:,} {split}" for split, size in info.split_sizes.items())
    _say(options, f"{info.title}: {sizes}; {info.num_classes} classes, {len(info.superclass_names)} superclasses; {prepared.folder}")
    for item in info.unreadable:
        _say(options, f"not readable: {item.path}: {item.reason}")
    facts = {key: asdict(info)[key] for key in ("source", "title", "resolution", "split_sizes", "fingerprint", "unreadable", "notes")}
    return _finish(options, facts | {"store": str(prepared.folder), "num_classes": info.num_classes})


def train(options: argparse.Namespace) -> int:
    if options.create:
        folder = launcher.create_run(_config_from(options))
        if not options.json:
            print(folder.path)
        return _finish(options, {"run_id": folder.run_id, "run_dir": str(folder.path)})
    return _follow_to_the_end(options, launcher.start_run(_config_from(options), options.on))


def resume(options: argparse.Namespace) -> int:
    launcher.resume_run(options.run_id, epochs=options.epochs, learning_rate=options.learning_rate, on=options.on)
    return _follow_to_the_end(options, options.run_id)


def _follow_to_the_end(options: argparse.Namespace, run_id: str) -> int:
    folder = store.find_run(run_id)
    _say(options, f"run {run_id} in {folder.path}")
    status, history = _follow(folder)
    end = history.terminal
    result: dict[str, Any] = {"run_id": run_id, "run_dir": str(folder.path), "status": status.value}
    best = history.best_epoch
    result["best_dev_accuracy"] = best.dev_accuracy if best else None
    result |= {"test_accuracy": None, "test_top5": None, "seconds": history.seconds}
    if isinstance(end, Completed):
        result |= {"test_accuracy": end.test_accuracy, "test_top5": end.test_top5}
        tested = "test left alone" if end.test_accuracy is None else f"test {end.test_accuracy:.1%}, top-5 {end.test_top5:.1%}"
        _say(options, f"dev {end.best_dev_accuracy:.1%} (epoch {end.best_epoch}), {tested}, {end.seconds:.0f} s")
    elif isinstance(end, Failed):
        result["error"] = end.message
        print("error: " + " ".join(end.message.split()), file=sys.stderr)
    elif status is store.RunStatus.LOST:
        print(f"error: the worker ended without a word; see {folder.worker_log}", file=sys.stderr)
    _finish(options, result)
    return 1 if status in (store.RunStatus.FAILED, store.RunStatus.LOST) else 0


def _config_from(options: argparse.Namespace) -> RunConfig:
    """Preset first, then what was given. Raises SettingsError."""
    names = {item.name for item in settings()}
    values = dict(preset(options.preset).values) if options.preset else {}
    values |= {name: value for name, value in vars(options).items() if name in names}
    config = make_config(**values)
    problems = catalog.problems(config)
    status = sources.describe(config.source)
    if status.state == "invalid":
        problems.append(status.message)
    if problems:
        raise SettingsError(" ".join(problems))
    return config


def _follow(folder: RunFolder) -> tuple[store.RunStatus, RunHistory]:
    """Show a run's progress until it ends. Ctrl-C asks it to stop and goes on following until it has."""
    follower = store.RunFollower(folder)
    with RunBar() as bar:
        while True:
            try:
                status = follower.update()
                bar.show(follower.history)
                if not status.is_active:
                    return status, follower.history
                time.sleep(_POLL_SECONDS)
            except KeyboardInterrupt:
                launcher.request_stop(folder.run_id)


def runs(options: argparse.Namespace) -> int:
    rows = [summarize(run_id) for run_id in store.run_ids()[: options.limit]]
    for row in rows:
        dev, test = (f"{value:.1%}" if value is not None else "-" for value in (row.best_dev_accuracy, row.test_accuracy))
        _say(options, f"{row.run_id}  {row.status.value:<9}  dev {dev:>6}  test {test:>6}  {row.name or row.problem}")
    if not rows:
        _say(options, "There are no runs yet. Start one with: python -m cifar_tl train")
    return _finish(options, {"runs": [_summary_json(row) for row in rows]})


def _summary_json(row: RunSummary) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in row.__dataclass_fields__ if name not in ("config", "annotations")}
    config = row.config.model_dump(mode="json") if row.config else None
    return values | {"config": config, "annotations": asdict(row.annotations)}


def stop(options: argparse.Namespace) -> int:
    asked = launcher.request_stop(options.run_id)
    _say(options, f"Asked {options.run_id} to stop." if asked else f"{options.run_id} is not running.")
    return _finish(options, {"run_id": options.run_id, "was_running": asked})


def queue(options: argparse.Namespace) -> int:
    if options.first:
        run_queue.move_to_front(options.first)
    waiting = run_queue.runs_waiting()
    for run_id in waiting:
        _say(options, run_id)
    if not waiting:
        _say(options, "No run waits.")
    return _finish(options, {"waiting": waiting})


def predict(options: argparse.Namespace) -> int:
    if options.top < 1:
        raise SettingsError(f"--top must be at least 1, not {options.top}.")
    folder = store.find_run(options.run_id)
    from cifar_tl.inference import Predictor

    predictor = Predictor.from_run(folder.path)
    entries, answered = [], 0
    asked = Asked(options.top, Framing(options.framing.capitalize()), options.average_flips)
    for answer in predictor.answer([(name, Path(name)) for name in options.files], asked):
        answered += not answer.error
        entries.append({"file": answer.name} | ({"error": answer.error} if answer.error else _answer_json(answer)))
        best = ", ".join(f"{item.class_name} {item.probability:.1%}" for item in answer.classes)
        _say(options, f"{answer.name}: {best or answer.error}")
    _finish(options, {"run_id": options.run_id, "files": entries})
    if not answered:
        raise ImageUnreadable("No file could be read as an image.")
    return 0


def _answer_json(answer: Answer) -> dict[str, Any]:
    return {
        "classes": [{"class": item.class_name, "probability": round(item.probability, 6)} for item in answer.classes],
        "superclasses": [{"superclass": item.superclass_name, "probability": round(item.probability, 6)} for item in answer.superclasses],
        "familiarity": answer.familiarity,
    }


def evaluate(options: argparse.Namespace) -> int:
    folder = store.find_run(options.run_id)
    # Not whether its process lives: that takes a moment to go after the run's last word, which `train` returns at.
    if summarize(folder.run_id).status.is_active:
        raise RunInvalid(f"Run {options.run_id} is still training; evaluate it when it has ended.")
    from cifar_tl.evaluation.evaluate import evaluate_run

    with PhaseBar() as bar:
        metrics = evaluate_run(folder, options.split, progress=bar.show)
    _say(options, f"{options.split}: accuracy {metrics.accuracy:.2%}, top-5 {metrics.top5:.2%}, loss {metrics.loss:.4f}")
    facts = {"accuracy": metrics.accuracy, "top5": metrics.top5, "loss": metrics.loss}
    return _finish(options, {"run_id": options.run_id, "split": options.split} | facts)


def describe(options: argparse.Namespace) -> int:
    folder = store.find_run(options.run_id)
    if reason := launcher.why_not_describe(folder):
        raise RunInvalid(reason)
    if options.lock_file is not None:
        os.set_inheritable(options.lock_file, False)
        return _describe(options, folder)
    if store.is_alive(folder):
        _say(options, f"{options.run_id} is being described already; waiting for that.")
    with hold.held(folder, patience=_SECONDS_TO_DESCRIBE, asks_to_leave=False):
        folder.stop_request.unlink(missing_ok=True)
        return _describe(options, folder)


def _describe(options: argparse.Namespace, folder: RunFolder) -> int:
    """What is missing of it, by whoever holds the run's lock."""
    from cifar_tl.evaluation.embedding_map import draw_tsne, end_when_asked, wants_tsne

    end_when_asked(folder, 1)
    if not is_described(folder):
        from cifar_tl.evaluation.describe import describe_run

        with PhaseBar(is_shown=options.lock_file is None) as bar:
            describe_run(folder, progress=bar.show)
    if wants_tsne(folder):
        _say(options, "Drawing the map, which takes a minute or so.")
        draw_tsne(folder)
    embeddings = load_embeddings(folder.embeddings)
    counts = {split: len(vectors) for split, vectors in embeddings.splits.items()}
    method = load_map(folder.embedding_map).method
    sizes = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    _say(options, f"embeddings of {sizes} images; a map by {method}; {folder.evaluation}")
    return _finish(options, {"run_id": folder.run_id, "embeddings": counts, "map": method})


def audit(options: argparse.Namespace) -> int:
    folder = store.find_run(options.run_id)
    if options.lock_file is not None:
        os.set_inheritable(options.lock_file, False)
    from cifar_tl.evaluation.audit import audit_data

    with PhaseBar(is_shown=options.lock_file is None) as bar:
        found = audit_data(folder, tell=bar.show, lock_file=options.lock_file)
    counts = {
        "doubted_labels": len(found.labels),
        "duplicates": len(found.duplicates),
        "test_images_in_train": len(found.test_rows_seen_in_training),
        "outliers": len(found.outliers),
    }
    _say(options, ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in counts.items()))
    return _finish(options, {"run_id": folder.run_id} | counts)


def export(options: argparse.Namespace) -> int:
    folder = store.find_run(options.run_id)
    from cifar_tl.export.run import export_run

    asked = ExportOptions(Kind(options.kind), not options.bare, options.int8, options.inline_runtime or "")
    target = Path(options.to) if options.to else export_folder(folder, asked.kind)
    with PhaseBar() as bar:
        report = export_run(folder, asked, progress=bar.show, target=target)
    for parity in report.parities:
        _say(options, parity.in_words)
    for line in report.refused:
        _say(options, line)
    _say(options, f"Exported: {', '.join(report.files)} in {target}")
    return _finish(options, {"run_id": report.run_id, "folder": str(target), **asdict(report)})


def shrink(options: argparse.Namespace) -> int:
    folder = store.find_run(options.run_id)
    from cifar_tl.shrink import shrink_run

    small = shrink_run(folder, options.name, overwrite=options.overwrite)
    size = sum(file.stat().st_size for file in small.path.rglob("*") if file.is_file())
    _say(options, f"{small.run_id}: {size / 1e6:.1f} MB in {small.path}")
    return _finish(options, {"run_id": small.run_id, "run_dir": str(small.path), "bytes": size})


def pack(options: argparse.Namespace) -> int:
    target = Path(options.file or f"{options.run_id}.zip")
    temporary = target.with_name(f".{target.name}.writing")
    try:
        run_pack.pack_run(options.run_id, temporary)
        temporary.replace(target)
    except OSError as error:
        raise RunInvalid(f"{target} cannot be written: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)
    _say(options, f"{target}: {target.stat().st_size / 1e6:.1f} MB")
    return _finish(options, {"run_id": options.run_id, "file": str(target), "bytes": target.stat().st_size})


def unpack(options: argparse.Namespace) -> int:
    try:
        run_id = run_pack.unpack_run(Path(options.file))
    except OSError as error:
        raise RunInvalid(f"{options.file} cannot be unpacked: {error.strerror or error}.") from error
    _say(options, f"run {run_id}")
    return _finish(options, {"run_id": run_id})


def _say(options: argparse.Namespace, text: str) -> None:
    """A line for people; with --json standard output is for the object alone."""
    print(text, file=sys.stderr if getattr(options, "json", False) else sys.stdout)


def _finish(options: argparse.Namespace, result: dict[str, Any]) -> int:
    if options.json:
        print(json.dumps(result, ensure_ascii=False))
    return 0
