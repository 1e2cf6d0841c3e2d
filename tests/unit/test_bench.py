"""What the benchmarks share: tables, ratios, timing, the machine in words, and a contender in a process of its own."""

import json
import os
import sys

import pytest

from bench.common import Column, add_ratios, machine, rate, report, run_contender, table
from bench.time_to_accuracy import as_option, seconds_to

COLUMNS = (Column("contender", "contender"), Column("images_per_second", "images/s", ".1f"))


def test_a_table_is_markdown_with_numbers_on_the_right():
    assert table(COLUMNS, [{"contender": "ours", "images_per_second": 55.123}]).splitlines() == [
        "| contender | images/s |",
        "| --- | ---: |",
        "| ours | 55.1 |",
    ]


def test_a_row_without_a_number_says_why_in_a_column_of_its_own():
    rows = [
        {"contender": "ours", "images_per_second": 1.0},
        {"contender": "a", "error": "no | luck"},
        {"contender": "b", "not_measured": "b"},
    ]
    lines = table(COLUMNS, rows).splitlines()
    assert lines[0] == "| contender | images/s | remark |"
    assert lines[2:] == ["| ours | 1.0 |  |", "| a |  | no \\| luck |", "| b |  | b |"]


def test_ratios_compare_only_rows_that_measure_the_same():
    rows = [
        {"contender": "ours", "px": 64, "images_per_second": 100.0},
        {"contender": "bare", "px": 64, "images_per_second": 50.0},
        {"contender": "bare", "px": 128, "images_per_second": 10.0},
        {"contender": "tuned", "px": 64, "error": "failed"},
    ]
    add_ratios(rows, "images_per_second", "ours", ("px",))
    assert [row.get("ours_over_this") for row in rows] == [None, 2.0, None, None]


def test_the_rate_counts_images_after_the_warm_up_and_waits_before_each_reading_of_the_clock():
    calls: list[str] = []

    def step() -> int:
        calls.append("step")
        return 7

    measured = rate(step, warm_up=2, steps=3, repeats=2, wait=lambda: calls.append("wait"))
    timed = ["wait", "step", "step", "step", "wait"]
    assert calls == ["step", "step", *timed, *timed]
    assert 0 < measured["lowest"] <= measured["images_per_second"] <= measured["highest"]


def test_the_machine_is_described_in_one_line_with_all_that_numbers_depend_on():
    described = machine()
    assert described.cores >= 1
    assert described.memory_gb > 0
    for part in (described.processor, described.torch, described.python, "bfloat16"):
        assert part in str(described)
    assert "\n" not in str(described)


def test_a_report_is_one_json_object_or_a_table_under_the_machine(capsys):
    rows = [{"contender": "ours", "images_per_second": 1.0}]
    report(rows, COLUMNS, as_json=True)
    printed = json.loads(capsys.readouterr().out)
    assert printed["rows"] == rows
    assert printed["machine"]["cores"] == machine().cores
    report(rows, COLUMNS, as_json=False)
    first, blank, *rest = capsys.readouterr().out.splitlines()
    assert (first, blank, rest) == (str(machine()), "", table(COLUMNS, rows).splitlines())


def test_a_contender_gets_its_settings_and_gives_its_result_through_a_process_of_its_own():
    settings = {"images": 3, "timing": {"steps": 2}, "name": "ours"}
    assert run_contender("builtins:dict", settings) == settings


def test_a_contender_sees_the_environment_it_is_given():
    row = run_contender("tests.unit.test_bench:seen", {"variable": "CIFAR_TL_CACHE"}, environment={"CIFAR_TL_CACHE": "elsewhere"})
    assert row == {"value": "elsewhere"}


def seen(variable: str) -> dict[str, str | None]:
    sys.stdout.write("what libraries print is not the result\n")
    return {"value": os.environ.get(variable)}


@pytest.mark.parametrize(
    ("function", "settings", "error"),
    [
        ("builtins:open", {"file": "/no/such/file"}, "FileNotFoundError: [Errno 2] No such file or directory: '/no/such/file'"),
        ("bench.common:no_such_contender", {}, "AttributeError: module 'bench.common' has no attribute 'no_such_contender'"),
        ("os:_exit", {"status": 3}, "ended with exit code 3 without a result"),
        ("os:abort", {}, "ended by SIGABRT without a result"),
    ],
    ids=["raises", "is not there", "exits", "is killed"],
)
def test_a_contender_that_fails_becomes_a_row_that_says_so(function, settings, error):
    assert run_contender(function, settings) == {"error": error}


def test_settings_are_written_as_the_command_line_has_them():
    assert as_option("image_size=128") == ["--image-size", "128"]
    assert as_option("flip=false") == ["--no-flip"]
    assert as_option("average_flips=true") == ["--average-flips"]
    assert as_option("classes=apple,bear") == ["--classes", "apple", "bear"]
    with pytest.raises(SystemExit, match="key=value"):
        as_option("flip")


def test_a_target_counts_only_when_the_whole_schedule_reaches_it():
    row = {"test_accuracy": 0.72, "seconds": 300.0}
    assert seconds_to(0.70, row) == 300.0
    assert seconds_to(0.75, row) is None
    assert seconds_to(0.70, {"error": "failed", "seconds": 5.0}) is None
