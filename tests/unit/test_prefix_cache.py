"""Cached activations: shared, resumable, checked on opening, and never more of them than the limit allows."""

import os

import numpy as np
import pytest
import torch

from cifar_tl.training.prefix_cache import PLAIN, PrefixCache, PrefixKey, make_room, reason_not_to_cache

SHAPE = (4, 2, 2)
ROWS = np.arange(600)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CIFAR_TL_CACHE", str(tmp_path / "cache"))


def key(boundary: int = 3) -> PrefixKey:
    return PrefixKey("data", "backbone", "weights", boundary, 64, "bf16")


def open_cache(boundary: int = 3) -> PrefixCache:
    return PrefixCache(key(boundary), SHAPE, torch.bfloat16)


def activations(rows: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(rows.astype(np.float32)).view(-1, 1, 1, 1).expand(-1, *SHAPE).bfloat16()


class Computing:
    """Computes activations and remembers of which rows."""

    def __init__(self, fail_after: int | None = None) -> None:
        self.rows: list[int] = []
        self.fail_after = fail_after

    def __call__(self, rows: np.ndarray) -> torch.Tensor:
        if self.fail_after is not None and len(self.rows) >= self.fail_after:
            raise KeyboardInterrupt
        self.rows += rows.tolist()
        return activations(rows)


def fill(cache: PrefixCache, rows: np.ndarray = ROWS, fail_after: int | None = None) -> tuple[list[int], int]:
    """The rows that were computed, and how many were damaged."""
    computing = Computing(fail_after)
    damaged = cache.fill("train", len(ROWS), rows, PLAIN, computing, lambda _: None)
    return sorted(computing.rows), damaged


def test_rows_are_computed_once_and_read_in_any_order():
    cache = open_cache()
    assert fill(cache) == (ROWS.tolist(), 0)
    assert fill(open_cache()) == ([], 0)
    wanted = np.array([599, 3, 3, 70])
    assert torch.equal(cache.read("train", len(ROWS), wanted, PLAIN), activations(wanted))


def test_only_what_is_missing_is_computed():
    fill(open_cache(), ROWS[:100])
    told = []
    computing = Computing()
    open_cache().fill("train", len(ROWS), ROWS[50:150], PLAIN, computing, told.append)
    assert computing.rows == list(range(100, 150))
    assert sum(told) == 100


def test_an_interrupted_filling_goes_on_where_it_was_committed():
    many = np.arange(5000)
    computing = Computing(fail_after=3000)
    with pytest.raises(KeyboardInterrupt):
        open_cache().fill("train", len(many), many, PLAIN, computing, lambda _: None)
    again = Computing()
    cache = open_cache()
    cache.fill("train", len(many), many, PLAIN, again, lambda _: None)
    assert again.rows == list(range(2048, 5000))
    assert torch.equal(cache.read("train", len(many), many, PLAIN), activations(many))


def test_a_damaged_row_is_computed_again():
    cache = open_cache()
    fill(cache)
    file = cache.folder / "train.plain.npy"
    content = bytearray(file.read_bytes())
    bytes_per_row = int(np.prod(SHAPE)) * 2
    content[-(5 * bytes_per_row) + 7] ^= 0x10  # one bit of the row before the last four
    file.write_bytes(content)
    reopened = open_cache()
    assert fill(reopened) == ([595], 1)
    assert torch.equal(reopened.read("train", len(ROWS), ROWS, PLAIN), activations(ROWS))


@pytest.mark.parametrize("name", ["train.plain.npy", "train.plain.crc.npy"])
@pytest.mark.parametrize("damage", ["cut short", "empty", "garbage", "gone"])
def test_a_half_written_file_is_made_anew(name, damage):
    cache = open_cache()
    fill(cache)
    file = cache.folder / name
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes({"cut short": content[: len(content) // 2], "empty": b"", "garbage": b"\x93NUMPY" + b"\xff" * 200}[damage])
    reopened = open_cache()
    computed, _ = fill(reopened)
    assert computed == ROWS[-len(computed) :].tolist()  # all of them, or those behind the cut
    assert len(computed) > len(ROWS) / 3
    assert torch.equal(reopened.read("train", len(ROWS), ROWS, PLAIN), activations(ROWS))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_values_come_back_bit_for_bit(dtype):
    cache = PrefixCache(key(), (7,), dtype)
    values = torch.randn(100, 7).to(dtype)
    cache.fill("dev", 100, np.arange(100), PLAIN, lambda rows: values[torch.from_numpy(rows)], lambda _: None)
    assert torch.equal(cache.read("dev", 100, np.arange(100), PLAIN), values)


def folder_names() -> set[str]:
    return {path.name for path in open_cache(99).folder.parent.iterdir()}


def test_the_least_recently_used_goes_first():
    for boundary, used in ((1, 100), (2, 300), (3, 200)):
        cache = open_cache(boundary)
        fill(cache)
        cache.close()
        os.utime(cache.folder / "in_use", (used, used))
    size = sum(file.stat().st_blocks * 512 for file in cache.folder.iterdir())
    deleted = make_room(size, limit_bytes=2.5 * size)
    assert deleted == [key(1).folder_name, key(3).folder_name]
    assert key(2).folder_name in folder_names()


def test_what_a_run_has_open_stays():
    in_use = open_cache(1)
    fill(in_use)
    assert make_room(10**12, limit_bytes=0) == []
    assert torch.equal(in_use.read("train", len(ROWS), ROWS[:5], PLAIN), activations(ROWS[:5]))
    in_use.close()
    assert make_room(10**12, limit_bytes=0) == [key(1).folder_name]


def test_what_fits_deletes_nothing():
    cache = open_cache(1)
    fill(cache)
    cache.close()
    assert make_room(0, limit_bytes=10**9) == []
    assert key(1).folder_name in folder_names()


def test_the_limit_and_the_disk_say_no():
    assert reason_not_to_cache(10**6, limit_bytes=10**9) == ""
    assert "more than the limit of 1.0 GB" in reason_not_to_cache(2 * 10**9, limit_bytes=10**9)
    assert "more than half" in reason_not_to_cache(10**18, limit_bytes=10**19)
