"""The end of a log file."""

from pathlib import Path

from cifar_tl.ui.worker_log import TAIL_BYTES, last_lines


def test_no_file_is_an_empty_log(tmp_path: Path) -> None:
    assert last_lines(tmp_path / "none", 10) == ""


def test_the_last_lines_come_in_order(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("a\nb\nc\n")
    assert last_lines(log, 2) == "b\nc"


def test_a_huge_log_is_read_from_its_end_without_a_cut_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {number:06}\n" for number in range(TAIL_BYTES)))
    lines = last_lines(log, 10**9).splitlines()
    assert lines[-1] == f"line {TAIL_BYTES - 1:06}"
    assert all(len(line) == len("line 000000") for line in lines)


def test_bytes_that_are_no_text_do_no_harm(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"\xff\xfe ok\n")
    assert last_lines(log, 1).endswith("ok")
