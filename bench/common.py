"""What every benchmark shares: the machine in words, timing, tables, and one contender in a process of its own.

torch is imported only where the machine is described, so that starting a contender costs nothing here.
"""

import argparse
import importlib.metadata
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cifar_tl.paths import PROJECT_ROOT

Row = dict[str, Any]


@dataclass(frozen=True)
class Machine:
    """What a reader must know to compare numbers with their own."""

    processor: str
    cores: int
    memory_gb: float
    gpu: str
    python: str
    torch: str
    has_native_bf16: bool

    def __str__(self) -> str:
        gpu = f", {self.gpu}" if self.gpu else ", no GPU"
        bf16 = "native" if self.has_native_bf16 else "not native"
        return f"{self.processor}, {self.memory_gb:.0f} GB{gpu}; torch {self.torch}, Python {self.python}; bfloat16 {bf16}"


def machine() -> Machine:
    import platform

    import psutil
    import torch

    from cifar_tl.devices import available_devices, cpu_count, device_name, has_native_bf16

    best = available_devices()[0]
    return Machine(
        processor=device_name(torch.device("cpu")),
        cores=cpu_count(),
        memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
        gpu="" if best == "cpu" else device_name(torch.device(best)),
        python=platform.python_version(),
        torch=importlib.metadata.version("torch"),
        has_native_bf16=has_native_bf16(best),
    )


@dataclass(frozen=True)
class Column:
    """A column of a table: the key of a row, its heading, and how a value is written."""

    key: str
    heading: str
    format: str = ""

    def cell(self, row: Row) -> str:
        value = row.get(self.key)
        if value is None:
            return ""
        return (format(value, self.format) if self.format else str(value)).replace("|", "\\|")


def table(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """Markdown. A row that failed or was left out says so in a last column, which is there only then."""
    remarks = [str(row.get("error") or row.get("not_measured") or "").replace("|", "\\|") for row in rows]
    lines = [[column.heading for column in columns], ["---:" if column.format else "---" for column in columns]]
    lines += [[column.cell(row) for column in columns] for row in rows]
    if any(remarks):
        lines = [[*line, extra] for line, extra in zip(lines, ["remark", "---", *remarks], strict=True)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def report(rows: Sequence[Row], columns: Sequence[Column], *, as_json: bool) -> None:
    """Print the result of a benchmark on standard output."""
    described = machine()
    if as_json:
        print(json.dumps({"machine": asdict(described), "rows": list(rows)}))
    else:
        print(f"{described}\n\n{table(columns, rows)}")


def add_ratios(rows: Sequence[Row], key: str, ours: str, group: Sequence[str], ratio: str = "ours_over_this") -> None:
    """Write into each row how many times its value `ours` has; rows are compared with those that agree in all keys of `group`."""
    best = {tuple(row[name] for name in group): row.get(key) for row in rows if row["contender"] == ours}
    for row in rows:
        reference = best.get(tuple(row[name] for name in group))
        if reference and row.get(key) and row["contender"] != ours:
            row[ratio] = reference / row[key]


def rate(step: Callable[[], int], *, warm_up: int, steps: int, repeats: int, wait: Callable[[], object] = lambda: None) -> dict[str, float]:
    """Images a second of `step`, which returns how many it did: the median of `repeats` timings of `steps` steps, and their span.

    `wait` is called before the clock is read: on a GPU it waits for the work that was only asked for.
    """
    for _ in range(warm_up):
        step()
    rates = []
    for _ in range(repeats):
        wait()
        began = time.perf_counter()
        images = sum(step() for _ in range(steps))
        wait()
        rates.append(images / (time.perf_counter() - began))
    return {"images_per_second": statistics.median(rates), "lowest": min(rates), "highest": max(rates)}


def run_contender(function: str, settings: Mapping[str, Any], *, environment: Mapping[str, str] | None = None) -> Row:
    """What `function` ("package.module:name") returns for `settings`, called in a fresh interpreter; {"error": ...} if it fails.

    A process of its own for each contender, because the engine changes how the C library allocates for the whole of its process,
    which must not help the others; and so that no contender finds kernels chosen, memory grown or threads started by another.
    Settings and the returned dict travel as JSON. What the contender says on standard error is passed on.
    """
    command = [sys.executable, "-m", "bench.contender", function, json.dumps(dict(settings))]
    print(f"measuring {function.rsplit(':', 1)[1]} {_in_words(settings)}", file=sys.stderr, flush=True)
    env = os.environ | dict(environment or {})
    done = subprocess.run(command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True, env=env, check=False)
    try:
        row: Row = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return {"error": f"ended {_ending(done.returncode)} without a result"}
    return row


def _in_words(settings: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in settings.items() if not isinstance(value, dict))


def _ending(code: int) -> str:
    return f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options all benchmarks have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    return parser


def add_source_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", default="cifar100", help="where images come from: cifar100, cifar10, shapes or folder:PATH")


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Options of those that may choose where they run."""
    add_source_option(parser)
    parser.add_argument("--device", default="auto", choices=("auto", "cuda", "mps", "cpu"))


def add_timing_options(parser: argparse.ArgumentParser, *, warm_up: int, steps: int, repeats: int = 3) -> None:
    parser.add_argument("--warm-up", type=int, default=warm_up, help="steps before the clock starts")
    parser.add_argument("--steps", type=int, default=steps, help="steps of each timing")
    parser.add_argument("--repeats", type=int, default=repeats, help="timings, of which the median counts")


def timing(options: argparse.Namespace) -> dict[str, int]:
    """The arguments of `rate` from the options."""
    return {"warm_up": options.warm_up, "steps": options.steps, "repeats": options.repeats}
