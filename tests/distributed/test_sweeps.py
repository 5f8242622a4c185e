"""sweep(): every executor gives every result once, and a killed sweep goes on where it was."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy
import pytest

from minidl.distributed import sweep
from tests.distributed import sweeping
from tests.distributed.mpi import needs_mpi, run


@pytest.fixture
def threads():
    with ThreadPoolExecutor(2) as executor:
        yield executor


def square(row):
    return {"square": row["x"] ** 2}


def test_results_come_with_their_settings(threads):
    rows = list(sweep(square, [{"x": x, "name": "a"} for x in range(5)], executor=threads))
    assert sorted(rows, key=lambda row: row["x"]) == [
        {"x": x, "name": "a", "square": x * x} for x in range(5)
    ]


def test_results_are_in_the_file_before_they_are_yielded(threads, tmp_path):
    path = tmp_path / "results.jsonl"
    for count, _ in enumerate(sweep(square, [{"x": x} for x in range(4)], path, executor=threads), 1):
        assert len(path.read_text().splitlines()) == count


def test_what_is_in_the_file_is_not_computed_again(threads, tmp_path):
    path, calls = tmp_path / "results.jsonl", []

    def counted(row):
        calls.append(row["x"])
        return {"result": row["x"]}

    list(sweep(counted, [{"x": 1, "y": 2}, {"x": 2, "y": 2}], path, executor=threads))
    rows = list(sweep(counted, [{"y": 2, "x": 2}, {"x": 3, "y": 2}], path, executor=threads))
    assert sorted(calls) == [1, 2, 3]
    assert [row["result"] for row in rows] == [2, 3]


def test_a_line_that_was_not_completed_is_computed_again(threads, tmp_path):
    path = tmp_path / "results.jsonl"
    list(sweep(square, [{"x": 1}, {"x": 2}], path, executor=threads))
    whole = path.read_text()
    path.write_text(whole[:-5])
    assert {row["square"] for row in sweep(square, [{"x": 1}, {"x": 2}], path, executor=threads)} == {1, 4}
    assert sorted(path.read_text().splitlines()) == sorted(whole.splitlines())


def test_another_file_is_refused(threads, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("bread\nmilk\n")
    with pytest.raises(ValueError, match=r"notes.txt, line 1, is no result of a sweep: b'bread'"):
        list(sweep(square, [{"x": 1}], path, executor=threads))
    assert path.read_text() == "bread\nmilk\n"


def test_failures_are_raised_after_all_others_and_tried_again(threads, tmp_path):
    path, broken = tmp_path / "results.jsonl", {2}

    def fails(row):
        if row["x"] in broken:
            raise FloatingPointError("diverged")
        return {"result": row["x"]}

    rows = []
    settings = [{"x": x} for x in range(4)]
    with pytest.raises(ExceptionGroup, match="1 of 4 settings failed") as caught:
        rows += sweep(fails, settings, path, executor=threads)
    assert caught.value.exceptions[0].__notes__ == ["settings: {'x': 2}"]
    broken.clear()
    assert sorted(row["result"] for row in sweep(fails, settings, path, executor=threads)) == [0, 1, 2, 3]


def test_numbers_of_numpy_are_numbers(threads, tmp_path):
    function = lambda row: {"a": numpy.float32(0.5), "b": numpy.arange(2), "c": float("nan")}
    (row,) = sweep(function, [{"x": numpy.int64(3)}], tmp_path / "results.jsonl", executor=threads)
    assert (row["x"], row["a"], row["b"]) == (3, 0.5, [0, 1])
    (again,) = sweep(function, [{"x": 3}], tmp_path / "results.jsonl", executor=threads)
    assert numpy.isnan(again["c"])


@pytest.mark.parametrize(("settings", "result"), [([3], {}), ([{"x": object()}], {}), ([{"x": 1}], 3)])
def test_other_settings_and_results_are_refused(settings, result, threads):
    with pytest.raises(TypeError, match=r"sweep: settings and results (are dicts|hold numbers)"):
        list(sweep(lambda row: result, settings, executor=threads))


def test_a_killed_sweep_goes_on_where_it_was_and_leaves_no_process(tmp_path):
    command = [sys.executable, sweeping.__file__, str(tmp_path), "12"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for _ in range(3):
        process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    finished = [json.loads(line)["settings"]["x"] for line in lines]
    assert 3 <= len(finished) < 12
    workers = {int(line) for path in tmp_path.glob("call-*") for line in path.read_text().splitlines()}
    deadline = time.monotonic() + 60
    while any(os.path.exists(f"/proc/{worker}") for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(os.path.exists(f"/proc/{worker}") for worker in workers)
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert sorted(int(line.split()[0]) for line in out.splitlines()) == list(range(12))
    calls = {x: len((tmp_path / f"call-{x}").read_text().splitlines()) for x in finished}
    assert set(calls.values()) == {1}


@needs_mpi
def test_a_sweep_on_the_processes_of_mpi(tmp_path):
    out = run(3, sweeping.__file__, tmp_path, 8, "mpi", module=("-m", "mpi4py.futures"))
    assert sorted(int(line.split()[0]) for line in out.splitlines()) == list(range(8))
