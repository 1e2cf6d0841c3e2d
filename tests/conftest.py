"""What all tests share: none finds what another's training left in this process."""

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def fresh_accelerator() -> Iterator[None]:
    """Accelerate keeps one state per process, with one precision: a worker has one run, a test session many."""
    yield
    state = sys.modules.get("accelerate.state")
    if state:
        state.AcceleratorState._reset_state(reset_partial_state=True)
