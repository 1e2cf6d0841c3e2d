"""Seconds from nothing to an accuracy on test: this program's recipes against torchvision's loop, tuned, over whole schedules.

    python -m bench.time_to_accuracy --target 0.70 --target 0.75 --recipe Balanced --recipe "Best accuracy" --peer-epochs 1 2 3
    python -m bench.time_to_accuracy --set trainable=head --set image_size=128 --set epochs=20 --set flip=false --peer-epochs

Every row starts with an empty cache and ends with an accuracy on test; the clock runs from the start of its process to its end. What is
counted for both: importing the libraries, preparing the data from the published files, training, testing. A schedule is trained to its
end, as its learning rate needs: an accuracy that is passed on the way does not count, for either side.

`--recipe` names a preset; `--set key=value` is added to every recipe or, where none is named, is one of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.common import Column, Row, add_engine_options, make_parser, report, run_contender
from cifar_tl.paths import PROJECT_ROOT

_RUN_COLUMNS = (
    Column("contender", "contender"),
    Column("recipe", "recipe"),
    Column("test_accuracy", "test accuracy", ".2%"),
    Column("seconds", "seconds", ".0f"),
)


def main() -> int:
    options = _parser().parse_args()
    rows = [_our_run(recipe, options) for recipe in _recipes(options)]
    rows += [_peer_run(size, epochs, options) for size in options.peer_sizes for epochs in options.peer_epochs]
    targets = sorted(set(options.target or [0.70, 0.75]))
    for row in rows:
        row |= {_key(target): seconds_to(target, row) for target in targets}
    report(rows, (*_RUN_COLUMNS, *(Column(_key(target), f"seconds to {target:.0%}", ".0f") for target in targets)), as_json=options.json)
    return 1 if any("error" in row for row in rows) else 0


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    add_engine_options(parser)
    parser.add_argument(
        "--target", type=float, action="append", help="accuracy on test, a fraction; may be given several times [0.70 0.75]"
    )
    parser.add_argument("--recipe", action="append", default=[], help="name of a preset; may be given several times")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="a setting; may be given several times"
    )
    parser.add_argument("--backbone", default="efficientnet_lite0", help="of both sides, with its default weights")
    parser.add_argument("--peer-epochs", nargs="*", type=int, default=[1, 2, 3], help="one schedule for each; none to leave the peer out")
    parser.add_argument("--peer-sizes", nargs="+", type=int, default=[128], help="image sizes of the peer's schedules, in px")
    parser.add_argument("--peer-batch", type=int, default=128)
    parser.add_argument("--peer-workers", type=int, help="[as many as cores]")
    parser.add_argument("--peer-crop-scale", type=float, default=0.08, help="the smallest share of an image its random crop keeps")
    parser.add_argument("--peer-images", type=int, help="train the peer on the first so many images, to try this out [all]")
    return parser


def _recipes(options: argparse.Namespace) -> list[str]:
    """Names of presets; the empty name stands for the settings alone."""
    return options.recipe or ([""] if options.settings else [])


def seconds_to(target: float, row: Row) -> float | None:
    """What a row took, if it reached the target; else None."""
    accuracy = row.get("test_accuracy")
    return row["seconds"] if accuracy is not None and accuracy >= target else None


def _key(target: float) -> str:
    return f"seconds_to_{target:g}"


def _our_run(recipe: str, options: argparse.Namespace) -> Row:
    """One run of the command line."""
    named = " ".join([recipe, *options.settings]).strip()
    arguments = ["--source", options.source, "--backbone", options.backbone, "--device", options.device, "--no-describe", "--json"]
    arguments += ["--preset", recipe] if recipe else []
    for setting in options.settings:
        arguments += as_option(setting)
    print(f"measuring ours {named}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as root:
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "cifar_tl", "train", *arguments],
            cwd=PROJECT_ROOT, capture_output=True, text=True, check=False, env=_environment(root),
        )  # fmt: skip
        seconds = time.perf_counter() - began
    row: Row = {"contender": "ours", "recipe": named, "seconds": seconds}
    if done.returncode:
        return row | {"error": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    result = json.loads(done.stdout.splitlines()[-1])
    return row | {"test_accuracy": result["test_accuracy"], "run_seconds": result["seconds"]}


def as_option(setting: str) -> list[str]:
    """key=value as the command line has it: true and false become --key and --no-key, commas part several values."""
    key, separator, value = setting.partition("=")
    if not separator:
        raise SystemExit(f"--set {setting}: a setting is written key=value, as in --set image_size=128.")
    option = key.replace("_", "-")
    if value.lower() in ("true", "false"):
        return [f"--{option}" if value.lower() == "true" else f"--no-{option}"]
    return [f"--{option}", *value.split(",")]


def _peer_run(image_size: int, epochs: int, options: argparse.Namespace) -> Row:
    from cifar_tl.devices import cpu_count

    settings = {
        "device": options.device, "source": options.source, "model": options.backbone, "weights": "default", "image_size": image_size,
        "epochs": epochs, "batch": options.peer_batch, "workers": cpu_count() if options.peer_workers is None else options.peer_workers,
        "crop_scale": options.peer_crop_scale, "images": options.peer_images,
    }  # fmt: skip
    named = f"{image_size} px, {epochs} {'epoch' if epochs == 1 else 'epochs'}"
    with tempfile.TemporaryDirectory() as root:
        began = time.perf_counter()
        result = run_contender("bench.peers:train_to_the_end", settings, environment=_environment(root))
        seconds = time.perf_counter() - began
    return {"contender": "tuned", "recipe": named, "seconds": seconds} | result


def _environment(root: str) -> dict[str, str]:
    """Nothing derived is there yet; published data and weights are."""
    return {**os.environ, "CIFAR_TL_CACHE": str(Path(root) / "cache"), "CIFAR_TL_CHECKPOINTS": str(Path(root) / "runs")}


if __name__ == "__main__":
    sys.exit(main())
