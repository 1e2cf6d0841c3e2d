"""What `advise` and `lr-range` of the command line do. Grammar and exit codes are in `cifar_tl.__main__`.

With --progress, which the pages use, standard output has one JSON object a line: progress, then answers.
"""

import argparse
import json
import sys
from collections.abc import Callable

from tqdm import tqdm

from cifar_tl.advice.answers import BackboneAdvice, interval_in_words, rates_in_words, sentence, to_json
from cifar_tl.config import RunConfig
from cifar_tl.errors import SettingsError
from cifar_tl.models import catalog
from cifar_tl.terminal import StatusBar


def advise(options: argparse.Namespace, config: RunConfig) -> int:
    """Exit code 1 if nothing could be told of any backbone."""
    names = _names(options.backbones, config.weights)
    from cifar_tl.advice.backbones import advise as ask

    with StatusBar() as bar:
        found = ask(config, names, _heard(options, bar), _told(options))
    if options.json:
        print(json.dumps({"backbones": [json.loads(to_json(item)) for item in found], "advice": sentence(found)}, ensure_ascii=False))
    elif not options.progress:
        print(sentence(found))
    return 0 if any(not item.error for item in found) else 1


def _names(asked: list[str] | None, weights: str) -> list[str]:
    """The backbones to advise on, all of whose weights are on this machine. Raises SettingsError, UnknownBackbone."""
    if weights == "none":
        raise SettingsError("Advice is what pretrained weights make of your images: choose weights other than none.")
    names = asked or backbones_at_hand(weights)
    which = "weights" if weights == "default" else f"weights {weights}"
    if not names:
        raise SettingsError(f"No backbone has its {which} on this machine, and advice downloads none.")
    for name in names:
        catalog.backbone(name)  # what is no backbone is said so
    if unknown := [name for name in names if not catalog.weights_on_disk(name, weights)]:
        raise SettingsError(f"The {which} of {', '.join(unknown)} are not on this machine, and advice downloads none.")
    return names


def lr_range(options: argparse.Namespace, config: RunConfig) -> int:
    from cifar_tl.advice.rate_range import rate_range

    with StatusBar() as bar:
        found = rate_range(config, _heard(options, bar))
    if options.json or options.progress:
        print(to_json(found), flush=True)
    else:
        print(rates_in_words(found, config.learning_rate).replace("**", ""))
    return 0


def backbones_at_hand(weights: str) -> list[str]:
    """Those of the catalogue whose weights of that name are on this machine."""
    return [entry.name for entry in catalog.backbones() if catalog.weights_on_disk(entry.name, weights)]


def _heard(options: argparse.Namespace, bar: StatusBar) -> Callable[[str, int, int], None]:
    def heard(text: str, done: int, total: int) -> None:
        if options.progress:
            print(json.dumps({"text": text, "done": done, "total": total}), flush=True)
        else:
            bar.show(text, min(1.0, done / max(1, total)))

    return heard


def _told(options: argparse.Namespace) -> Callable[[BackboneAdvice], None]:
    def told(item: BackboneAdvice) -> None:
        if options.progress:
            print(to_json(item), flush=True)
        else:
            tqdm.write(_line(item), file=sys.stderr if options.json else sys.stdout)  # above the bar

    return told


def _line(item: BackboneAdvice) -> str:
    if item.error:
        return f"{item.backbone}: {item.error}"
    return (
        f"{item.backbone}: expected dev accuracy {100 * item.expected:.1f} % ({interval_in_words(item)}), nearest neighbours "
        f"{100 * item.neighbours:.1f} %, {item.epoch_seconds:.1f} s an epoch, {item.memory_bytes / 1e9:.1f} GB"
    )
