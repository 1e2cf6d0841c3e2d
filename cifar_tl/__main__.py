"""The command line: `python -m cifar_tl COMMAND`. The same runs, folders and models as the dashboard, without a browser.

This file owns the grammar; `cifar_tl.commands` does the work. Errors are one line on standard error. Exit code 0 is success,
1 a failed run (or no file that answered), 2 wrong use, 130 interrupted by Ctrl-C.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from cifar_tl.answers import Framing
from cifar_tl.errors import CifarTLError, SettingsError
from cifar_tl.export.report import Kind
from cifar_tl.paths import RunFolder, SweepFolder
from cifar_tl.presets import PRESETS
from cifar_tl.settings import Setting, settings


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    parser = _OneLineParser(prog="python -m cifar_tl", description="Interactive transfer learning for image classification.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_OneLineParser)
    _add_data(commands)
    _add_train(commands)
    _add_sweep(commands)
    _add_advice(commands)
    runs = _add(commands, "runs", "list all runs, newest first")
    runs.add_argument("--limit", type=int, default=None, help="show at most this many")
    _add(commands, "stop", "ask a running run to stop after its present step").add_argument("run_id")
    resume = _add(commands, "resume", "let a stopped, failed or killed run go on from its last checkpoint, or train a completed one longer")
    resume.add_argument("run_id")
    resume.add_argument("--epochs", type=int, default=None, help="how many epochs the run is to have in all [as before]")
    resume.add_argument("--on", metavar="ADDRESS", default=None, help="here, or the address of a Ray cluster [where it was]")
    resume.add_argument("--learning-rate", type=float, default=None, help="from now on [as before]")
    queue = _add(commands, "queue", "list the runs that wait for a device, the next one first")
    queue.add_argument("--first", metavar="RUN_ID", help="move this one to the front")
    predict = _add(commands, "predict", "classify image files with the model of a run")
    predict.add_argument("run_id")
    predict.add_argument("files", nargs="+", metavar="FILE")
    predict.add_argument("--top", type=int, default=5, help="how many classes to name per file")
    framings = [framing.value.lower() for framing in Framing]
    predict.add_argument("--framing", choices=framings, default=framings[0], help="what is taken of a picture that is no square [middle]")
    predict.add_argument("--average-flips", action=argparse.BooleanOptionalAction, help="as the run was evaluated unless given")
    evaluate = _add(commands, "evaluate", "evaluate the best weights of a run and store the arrays for Explore")
    evaluate.add_argument("run_id")
    evaluate.add_argument("--split", choices=("dev", "test"), default="test")
    describe = _add(commands, "describe", "prepare what Explore shows: answers for training images, embeddings and their map")
    describe.add_argument("run_id")
    describe.add_argument("--lock-file", type=int, default=None, help=argparse.SUPPRESS)
    audit = _add(commands, "audit", "look for wrong labels, duplicates and outliers in the data of a run")
    audit.add_argument("run_id")
    audit.add_argument("--lock-file", type=int, default=None, help=argparse.SUPPRESS)
    export = _add(commands, "export", "write the model for use elsewhere: ONNX, safetensors with a model card, or a web page")
    export.add_argument("run_id")
    export.add_argument("--kind", choices=[kind.value for kind in Kind], default=Kind.ONNX.value, help="[onnx]")
    export.add_argument("--to", metavar="FOLDER", help="a new folder; by default one in the run's own")
    export.add_argument("--int8", action="store_true", help="an ONNX file of 8 bits besides")
    export.add_argument("--bare", action="store_true", help="ONNX without the preprocessing inside")
    export.add_argument(
        "--inline-runtime", metavar="DIR", help="an unpacked npm package onnxruntime-web: the web page carries it and needs no network"
    )
    shrink = _add(commands, "shrink", "copy a completed run into a folder small enough to be handed on")
    shrink.add_argument("run_id")
    shrink.add_argument("name", help="of the copy, which is a run like any other")
    shrink.add_argument("--overwrite", action="store_true", help="replace a run of that name")
    pack = _add(commands, "pack", "write a run into one .zip file, to be handed on")
    pack.add_argument("run_id")
    pack.add_argument("file", nargs="?", help="[RUN_ID.zip in the current folder]")
    _add(commands, "unpack", "make a run of such a file").add_argument("file")
    worker = commands.add_parser("worker", help="(started by the program) the process of one run")
    worker.add_argument("run_dir")
    worker.add_argument("--lock-file", type=int, default=None, help="inherited file descriptor that holds the run's lock")
    rank = commands.add_parser("rank", help="one of the processes that train a run together, for torchrun (docs/machines.md)")
    rank.add_argument("run_dir", metavar="RUN_DIR")
    driver = commands.add_parser("cluster-driver", help="(started by the program) the driver of a run on a Ray cluster")
    driver.add_argument("run_dir")
    conductor = commands.add_parser("conductor", help="(started by the program) the process of one sweep")
    conductor.add_argument("sweep_dir")
    conductor.add_argument("--lock-file", type=int, required=True)
    worker.add_argument("--draw-map", action="store_true", help="only draw the embedding map, which is the last thing that a worker does")
    return parser


def _add(commands: Any, name: str, help: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
    command.add_argument("--json", action="store_true", help="print one JSON object as the last line of standard output")
    return command


def _add_data(commands: Any) -> None:
    data = commands.add_parser("data", help="prepare data sets")
    actions = data.add_subparsers(dest="action", required=True, parser_class=_OneLineParser)
    prepare = _add(actions, "prepare", "turn a source into an image store, downloading it if need be")
    prepare.add_argument("source", help="cifar100, cifar10, shapes or folder:PATH")
    prepare.add_argument("--store-resolution", type=int, default=160, help="stored height and width of a folder's images, in px")
    prepare.add_argument("--seed", type=int, default=0, help="of the train / test split of a folder that has none")


def _add_sweep(commands: Any) -> None:
    sweep = _add(
        commands,
        "sweep",
        "many runs with different settings, each chosen by how the ones before did on dev; Ctrl-C stops it and its runs, and --continue goes on",
    )
    sweep.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="SETTING=VALUES",
        help="learning_rate=0.001..0.1:log, batch_size=64,128,256, trainable=head,last_stages; again for each setting",
    )
    sweep.add_argument("--trials", type=int, default=20, help="[20]")
    sweep.add_argument("--minutes", type=float, default=None, help="end after this time [no limit]")
    sweep.add_argument(
        "--pruner",
        choices=("median", "hyperband", "none"),
        default="median",
        help="who gives up trials early, by dev accuracy per epoch [median]",
    )
    sweep.add_argument("--at-once", type=int, default=1, help="trials at the same time, on all devices of this machine together [1]")
    sweep.add_argument("--storage", metavar="URL", default="", help="Optuna's storage, for several machines that share one study [a file]")
    sweep.add_argument("--study", metavar="NAME", default="sweep", help="the study's name in that storage [sweep]")
    sweep.add_argument("--detach", action="store_true", help="return at once, and leave the sweep running")
    sweep.add_argument("--continue", dest="resume", metavar="SWEEP_ID", help="go on with one that was stopped or killed")
    sweep.add_argument("--stop", metavar="SWEEP_ID", help="stop one, and its runs")
    sweep.add_argument("--preset", choices=[preset.name for preset in PRESETS], help="values for settings that are not given")
    _add_settings(sweep)
    _add(commands, "sweeps", "list all sweeps, newest first")


def _add_advice(commands: Any) -> None:
    advise = _add(commands, "advise", "what accuracy and time to expect of backbones, from some images and a few timed steps")
    advise.add_argument("--backbones", nargs="+", metavar="NAME", default=None, help="[those whose weights are on this machine]")
    lr_range = _add(commands, "lr-range", "find a learning rate: a range test in less than a hundred steps")
    for command in (advise, lr_range):
        command.add_argument("--progress", action="store_true", help=argparse.SUPPRESS)
        command.add_argument("--preset", choices=[preset.name for preset in PRESETS], help="values for settings that are not given")
        _add_settings(command)


def _add_train(commands: Any) -> None:
    train = _add(commands, "train", "train a model; every setting of the form is an option here")
    train.add_argument(
        "--on", metavar="ADDRESS", default="here", help="send the run to the Ray cluster at this address, http://HOST:8265 [here]"
    )
    train.add_argument("--create", action="store_true", help="only make the run's folder and print its path, for torchrun")
    train.add_argument("--preset", choices=[preset.name for preset in PRESETS], help="values for settings that are not given")
    _add_settings(train)


def _add_settings(command: argparse.ArgumentParser) -> None:
    for item in settings():
        command.add_argument(f"--{item.name.replace('_', '-')}", dest=item.name, default=argparse.SUPPRESS, **_argument(item))


def _argument(item: Setting) -> dict[str, Any]:
    default = "all" if item.default is None or item.default == () else item.default
    text = f"{item.help} [{default}]".replace("%", "%%")
    if item.kind is bool:
        return {"action": argparse.BooleanOptionalAction, "help": text}
    if item.choices:
        return {"choices": item.choices, "help": text}
    if item.kind is tuple:
        return {"nargs": "+", "metavar": "NAME", "help": text}
    return {"type": item.kind, "metavar": item.unit.split(" ")[0].upper() or item.kind.__name__.upper(), "help": text}


def main(arguments: Sequence[str] | None = None) -> int:
    options = build_parser().parse_args(arguments)
    # Imported after parsing: --help and wrong use answer at once.
    try:
        if options.command == "rank":
            from cifar_tl.training.rank import rank_main

            return rank_main(RunFolder(Path(options.run_dir).resolve()))
        if options.command == "cluster-driver":
            from cifar_tl.training.cluster_driver import run_driver

            return run_driver(RunFolder(Path(options.run_dir).resolve()))
        if options.command == "conductor":
            from cifar_tl.sweeps.conductor import run_conductor

            return run_conductor(SweepFolder(Path(options.sweep_dir).resolve()), options.lock_file)
        if options.command == "worker":
            return _work(RunFolder(Path(options.run_dir).resolve()), options)
        from cifar_tl import commands

        return commands.run(options)
    except SettingsError as error:
        return _fail(error, 2)
    except CifarTLError as error:
        return _fail(error, 1)
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def _work(folder: RunFolder, options: argparse.Namespace) -> int:
    if options.draw_map:
        from cifar_tl.evaluation.embedding_map import run_map_drawer

        return run_map_drawer(folder, options.lock_file)
    from cifar_tl.training.worker import run_worker

    return run_worker(folder, options.lock_file)


def _fail(error: Exception, code: int) -> int:
    print("error: " + " ".join(str(error).split()), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
