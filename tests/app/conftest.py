"""What the tests of the pages share: empty folders, a clean cache, and a prediction process that only takes notes."""

import sys
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import streamlit as st

from cifar_tl.answers import Hardware
from cifar_tl.ui import cached

HARDWARE = Hardware(devices=("cpu",), device_name="Made processor", has_native_bf16=True, cpu_count=2, memory_bytes=8 * 1024**3)


@pytest.fixture(autouse=True)
def checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Empty roots for runs, data and caches; returns the one for runs."""
    for name in ("data", "cache", "checkpoints"):
        monkeypatch.setenv(f"CIFAR_TL_{name.upper()}", str(tmp_path / name))
    st.cache_data.clear()
    st.cache_resource.clear()
    root = tmp_path / "checkpoints"
    root.mkdir()
    main = sys.modules["__main__"]
    yield root
    sys.modules["__main__"] = main  # Streamlit puts its script there, and a process that is spawned later would look for that file
    st.cache_data.clear()
    st.cache_resource.clear()


@dataclass
class NotingPredictor:
    """Stands for the prediction process: notes each request, and answers when the test says so."""

    asked: list[tuple[str, tuple[Any, ...], Future[Any]]] = field(default_factory=list)

    def submit(self, function: str, *args: object) -> Future[Any]:
        future: Future[Any] = Future()
        self.asked.append((function, args, future))
        if function == "cifar_tl.probe:hardware":
            future.set_result(HARDWARE)
        return future

    def of(self, function: str) -> list[tuple[tuple[Any, ...], Future[Any]]]:
        """Arguments and futures of the requests for one function, in order."""
        return [(args, future) for name, args, future in self.asked if name == function]


@pytest.fixture
def predictor(monkeypatch: pytest.MonkeyPatch) -> NotingPredictor:
    noting = NotingPredictor()
    monkeypatch.setattr(cached, "predictor", lambda: noting)
    return noting
