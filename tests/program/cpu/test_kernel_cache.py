"""Generated libraries are built once, checked before they are loaded, and done without where need be."""

import ctypes
import errno
import gc
import os
import random
import shutil
import signal
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy
import pytest

import minidl as dl
from minidl import files
from minidl.errors import KernelError
from minidl.program.cpu import kernel_cache
from minidl.program.cpu.blas import best_blas
from minidl.program.cpu.c_code import CSource
from minidl.program.cpu.statements import copy_statement

needs_c = pytest.mark.skipif(kernel_cache.compiler() is None, reason="there is no C compiler on this machine")
needs_posix = pytest.mark.skipif(os.name != "posix", reason="owners and modes are POSIX")
needs_zig = pytest.mark.skipif(kernel_cache.zig() is None, reason="the package ziglang is not installed")


def source(number):
    return f"int answer(void) {{ return {number}; }}\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of a new cache, as a new process finds it."""
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path / "cache"))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(kernel_cache, "_warned", set())
    forget(monkeypatch)
    yield tmp_path / "cache" / "kernels"
    assert list(temporary.iterdir()) == [], "temporary files were left"


def forget(monkeypatch):
    monkeypatch.setattr(kernel_cache, "_loaded", {})


@pytest.fixture
def builds(monkeypatch):
    """A list that grows with each run of the compiler."""
    runs, compiled = [], kernel_cache._compiled

    def counted(*arguments):
        runs.append(1)
        return compiled(*arguments)

    monkeypatch.setattr(kernel_cache, "_compiled", counted)
    return runs


def use_compiler(monkeypatch, tmp_path, script):
    """Put a shell script in the compiler's place."""
    path = tmp_path / "fake-cc"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    fake = kernel_cache.Compiler((str(path),), "1", (), ())
    monkeypatch.setattr(kernel_cache, "compiler", lambda: fake)


@needs_c
def test_parts_of_a_source_are_compiled_by_several_runs_and_linked(folder):
    parts = ["int answer(void) { return other() + 1; }", "int other(void) { return 41; }"]
    text = "int other(void);\n" + "".join(
        f"{kernel_cache.UNIT.format(unit)}\n{part}\n#endif\n" for unit, part in enumerate(parts)
    )
    assert kernel_cache.load(text).answer() == 42
    with pytest.raises(KernelError, match="refused a generated kernel"):
        kernel_cache.load(text.replace("return 41", "returnwrong("))


# --- what is kept ---------------------------------------------------------------------------------


@needs_c
def test_a_library_is_built_once_and_found_again(folder, builds, monkeypatch):
    for _ in range(3):
        assert kernel_cache.load(source(1)).answer() == 1
        assert kernel_cache.load(source(2)).answer() == 2
        forget(monkeypatch)
    assert len(builds) == 2
    assert len(list(folder.iterdir())) == 2
    assert {path.suffix for path in folder.iterdir()} == {".dll" if os.name == "nt" else ".so"}


@needs_c
@needs_posix
def test_nobody_else_may_write_what_is_kept(folder):
    before = os.umask(0)
    try:
        kernel_cache.load(source(1))
    finally:
        os.umask(before)
    (path,) = folder.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o600


@needs_c
def test_many_libraries_are_not_taken_for_each_other(folder, monkeypatch):
    """Numbers of files, and so paths in memory, are used again and again."""
    library = kernel_cache._built(source(0), kernel_cache.compiler(), [None])
    loaded = [kernel_cache._mapped(library, [None]) for _ in range(20)]
    assert len({library._handle for library in loaded}) == 20


# --- what is not loaded ---------------------------------------------------------------------------


def flip(path, draw):
    contents = bytearray(path.read_bytes())
    contents[draw.randrange(len(contents))] ^= 1 << draw.randrange(8)
    path.write_bytes(contents)


def truncate(path, draw):
    os.truncate(path, draw.randrange(path.stat().st_size))


def append(path, draw):
    with open(path, "ab") as file:
        file.write(draw.randbytes(draw.randrange(1, 100)))


def overwrite(path, draw):
    path.write_bytes(draw.randbytes(draw.choice([0, 1, 100, 20_000])))


def blank_a_page(path, draw):
    with open(path, "r+b") as file:
        file.seek(draw.randrange(path.stat().st_size - 512))
        file.write(b"\xaa" * 512)


def plant(path, draw):
    """A library that does something when it is loaded, whole and with its checksums."""
    text = "__attribute__((constructor)) static void run(void) { __builtin_trap(); }\n" + source(7)
    program = kernel_cache.compiler()
    if not planted:
        planted.append(kernel_cache._built(text, program, [None]))
    path.write_bytes(planted[0] + b"\n" + kernel_cache._trailer(planted[0], text, program))


def plant_without_checksums(path, draw):
    plant(path, draw)
    path.write_bytes(planted[0])


def plant_with_checksums_of_another(path, draw):
    trailer = path.read_bytes().rpartition(b"\n")[2]
    plant(path, draw)
    path.write_bytes(planted[0] + b"\n" + trailer)


planted: list[bytes] = []


def group_may_write(path, draw):
    path.chmod(0o660)


def all_may_write(path, draw):
    path.chmod(0o606)


def pipe(path, draw):
    path.unlink()
    os.mkfifo(path)


def link(path, draw):
    target = path.with_name("kernels-elsewhere.so")
    shutil.move(path, target)
    path.symlink_to(target)


def dangling_link(path, draw):
    path.unlink()
    path.symlink_to(path.parent / "nowhere")


def another_users(path, draw):
    os.chown(path, 12345, -1)


DAMAGES = [flip, truncate, append, overwrite, blank_a_page]
DAMAGES += [plant, plant_without_checksums, plant_with_checksums_of_another]
DAMAGES += [group_may_write, all_may_write, pipe, link, dangling_link]
if os.name == "posix" and os.geteuid() == 0:  # only root can give files away
    DAMAGES.append(another_users)


@needs_c
@needs_posix
@pytest.mark.parametrize("times", [1, pytest.param(15, marks=pytest.mark.slow)])
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_or_others_wrote_is_built_again(damage, times, folder, builds, monkeypatch):
    draw = random.Random(f"{damage.__name__} {times}")
    kernel_cache.load(source(1))
    (path,) = folder.iterdir()
    good = path.read_bytes()
    for _ in range(times):
        damage(path, draw)
        builds.clear()
        forget(monkeypatch)
        assert kernel_cache.load(source(1)).answer() == 1
        assert builds, "a file was loaded that should not have been"
        builds.clear()
        forget(monkeypatch)
        assert kernel_cache.load(source(1)).answer() == 1
        assert not builds, "what was damaged has not been replaced"
        path.write_bytes(good)


@needs_c
def test_what_is_damaged_after_it_was_loaded_still_runs(folder):
    library = kernel_cache.load(source(1))
    (path,) = folder.iterdir()
    os.truncate(path, 0)
    assert library.answer() == 1


@needs_c
@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="looks for libraries in Linux's list of mappings")
def test_libraries_are_unloaded_when_no_function_is_left(folder, monkeypatch):
    def mappings():
        gc.collect()
        return Path("/proc/self/maps").read_text().count("memfd:minidl-kernels")

    monkeypatch.setattr(kernel_cache, "MAX_LOADED", 2)
    before = mappings()
    answer = kernel_cache.load(source(0))["answer"]
    one = mappings() - before
    for number in range(1, 8):
        assert kernel_cache.load(source(number))["answer"]() == number
    assert mappings() == before + 3 * one  # the last two, and the one with a function that is still held
    assert answer() == 0
    del answer
    assert mappings() == before + 2 * one


# --- where something does not work ----------------------------------------------------------------


@needs_c
@needs_posix
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_a_folder_that_others_may_write_to_is_not_used(mode, folder, builds, monkeypatch):
    folder.mkdir(parents=True)
    folder.chmod(mode)
    with pytest.warns(RuntimeWarning, match=r"each process compiles them: others may write .*MINIDL_CACHE"):
        assert kernel_cache.load(source(1)).answer() == 1
    assert list(folder.iterdir()) == []
    with warnings.catch_warnings(action="error"):  # says so once
        assert kernel_cache.load(source(2)).answer() == 2
    assert len(builds) == 2


@needs_c
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can give folders away")
def test_a_folder_of_another_user_is_not_used(folder):
    folder.mkdir(parents=True)
    os.chown(folder, 12345, -1)
    with pytest.warns(RuntimeWarning, match="belongs to another user"):
        assert kernel_cache.load(source(1)).answer() == 1


@needs_c
def test_a_cache_that_is_a_file_is_done_without(folder):
    folder.parent.write_text("a file")
    with pytest.warns(RuntimeWarning, match="generated kernels cannot be kept"):
        assert kernel_cache.load(source(1)).answer() == 1


@needs_c
def test_a_home_that_does_not_exist_is_done_without(folder, monkeypatch):
    def fails():
        raise RuntimeError("no home folder")

    monkeypatch.setattr(files, "cache_folder", fails)
    with pytest.warns(RuntimeWarning, match="no home folder"):
        assert kernel_cache.load(source(1)).answer() == 1


@needs_c
def test_a_cache_that_cannot_be_written_is_done_without(folder, monkeypatch):
    """A read-only file system: neither the compiler's files nor the library can be written there."""
    make = tempfile.mkdtemp

    def fails(*arguments, **keywords):
        raise OSError(errno.EROFS, "Read-only file system")

    def fails_there(*arguments, **keywords):
        return fails() if keywords.get("dir") == folder else make(*arguments, **keywords)

    monkeypatch.setattr(tempfile, "mkdtemp", fails_there)
    monkeypatch.setattr(files, "replacing", fails)
    with pytest.warns(RuntimeWarning, match="Read-only file system"):
        assert kernel_cache.load(source(1)).answer() == 1


@needs_c
def test_full_temporary_files_are_done_without(folder, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/proc/nothing")
    monkeypatch.setenv("TMPDIR", "/proc/nothing")
    with warnings.catch_warnings(action="error"):
        assert kernel_cache.load(source(1)).answer() == 1
    monkeypatch.undo()


@needs_c
@pytest.mark.parametrize("refused", ["memory", "cache"])
def test_where_code_may_not_be_mapped_the_next_place_is_tried(refused, folder, monkeypatch):
    """A file system mounted noexec; no files in memory."""
    load, tried = ctypes.CDLL, []

    def refuses(path):
        place = "memory" if path.startswith("/proc") else "cache" if "cache" in path else "temporary"
        tried.append(place)
        if place in ("memory", refused):
            raise OSError(f"{path}: failed to map segment from shared object")
        return load(path)

    monkeypatch.setattr(ctypes, "CDLL", refuses)
    assert kernel_cache.load(source(1)).answer() == 1
    assert tried[-1] == {"memory": "cache", "cache": "temporary"}[refused]
    assert len(list(folder.iterdir())) == 1


@needs_c
def test_without_files_in_memory_no_files_are_left(folder, monkeypatch):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    assert kernel_cache.load(source(1)).answer() == 1
    assert len(list(folder.iterdir())) == 1


@needs_c
def test_where_no_code_can_be_mapped_numpy_computes_and_says_so(folder, monkeypatch):
    best_blas()  # loaded before

    def refuses(path):
        raise OSError("failed to map segment from shared object")

    monkeypatch.setattr(ctypes, "CDLL", refuses)
    step = dl.compile(lambda x: x * 2 + 1, kernels="c")
    with pytest.warns(RuntimeWarning, match="so NumPy computes: failed to map"):
        result = step(dl.ones(3))
    assert result.numpy().tolist() == [3, 3, 3]


def test_a_compiler_that_cannot_be_run_is_done_without(folder, monkeypatch, tmp_path):
    missing = kernel_cache.Compiler((str(tmp_path / "cc"),), "1", (), ())
    monkeypatch.setattr(kernel_cache, "compiler", lambda: missing)
    step = dl.compile(lambda x: x * 2 + 1, kernels="c")
    with pytest.warns(RuntimeWarning, match="so NumPy computes: .*No such file"):
        assert step(dl.ones(3)).numpy().tolist() == [3, 3, 3]
    assert list(folder.iterdir()) == []


# --- compilers ------------------------------------------------------------------------------------


def test_without_a_compiler_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setattr(kernel_cache, "compiler", lambda: None)
    step = dl.compile(lambda x: x * 2 + 1, kernels="c")
    with pytest.raises(KernelError, match=r"kernels='c' needs a C compiler .* kernels='numpy' needs none"):
        step(dl.ones(3))


@needs_posix
def test_what_a_compiler_refuses_is_an_error_with_its_words(folder, monkeypatch, tmp_path):
    use_compiler(monkeypatch, tmp_path, "echo this is not C >&2; exit 1")
    with pytest.raises(KernelError, match=r"kernels='numpy' needs no compiler:\n(.|\n)*this is not C"):
        kernel_cache.load(source(1))
    assert list(folder.iterdir()) == []


@needs_posix
def test_a_compiler_that_hangs_is_stopped_with_all_it_started(folder, monkeypatch, tmp_path):
    marker = tmp_path / "process"
    use_compiler(monkeypatch, tmp_path, f"sleep 1000 & echo $! > {marker}; wait")
    monkeypatch.setattr(kernel_cache, "COMPILER_SECONDS", 0.5)
    with pytest.raises(KernelError, match=r"stopped after 0.5 seconds: use kernels='numpy'"):
        kernel_cache.load(source(1))
    assert list(folder.iterdir()) == []
    assert has_ended(int(marker.read_text()))


@needs_posix
def test_ctrl_c_stops_the_compiler_and_leaves_no_files(folder, monkeypatch, tmp_path):
    marker = tmp_path / "process"
    use_compiler(monkeypatch, tmp_path, f"echo $$ > {marker}; exec sleep 1000")
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            kernel_cache.load(source(1))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert list(folder.iterdir()) == []
    assert has_ended(int(marker.read_text()))


def has_ended(process):
    """Wait for a process to end; one that nobody asks for its status counts too."""
    deadline = time.time() + 60
    while time.time() < deadline:
        try:
            os.kill(process, 0)
            if "State:\tZ" in Path(f"/proc/{process}/status").read_text():
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.01)
    return False


@needs_zig
@pytest.mark.slow
def test_the_compiler_that_pip_installs_will_do(folder, monkeypatch):
    monkeypatch.setattr(kernel_cache, "compiler", kernel_cache.zig)
    x = dl.tensor(numpy.array([[0.1, -0.7], [2.0, 0.3]], "float32"))

    def function(x):
        return dl.sum(dl.tanh(dl.exp(x) @ x.T) * dl.log1p(dl.exp(x)), axis=0)

    result = dl.compile(function, kernels="c", threads=2)(x).numpy()
    assert len(list(folder.iterdir())) == 1
    assert abs(result - function(x).numpy()).max() < 1e-5


@needs_zig
@pytest.mark.slow
def test_generated_c_compiles_for_windows_and_macos(folder, monkeypatch):
    program = kernel_cache.zig()
    written = []
    monkeypatch.setattr(kernel_cache, "load", lambda text: written.append(text) or 1 / 0)
    code = CSource()
    functions = ("exp", "expm1", "log", "log1p", "tanh", "erf", "sin")
    calls = " + ".join(f"{name}({x}[0])" for name in functions for x in ("u", "v"))
    address = code.address(numpy.ones(1))
    code.segment(
        [
            code.barrier(2),
            f"float *u = {address}; double *v = {address}; v[0] = {calls} + pow(u[0], 3) + pow(v[0], u[0]);",
            copy_statement(code, numpy.ones(100), numpy.ones(100, "float32")),
        ]
    )
    with pytest.raises(ZeroDivisionError):
        code.build()
    for target in ("x86_64-windows-gnu", "aarch64-macos", "x86_64-linux-musl", "aarch64-linux-gnu"):
        flags = [flag for flag in program.flags if flag not in ("-march=native", "-mcpu=native", "-shared")]
        if "windows" in target:
            flags.remove("-fPIC")
        there = replace(program, flags=(*flags, "-c", "-Werror", "-target", target), libraries=())
        assert kernel_cache._built(written[0], there, [None])


# --- its size -------------------------------------------------------------------------------------


@needs_c
@pytest.mark.parametrize("limit", ["files", "bytes"])
def test_what_has_not_been_used_for_longest_is_deleted(limit, folder, builds, monkeypatch):
    paths = []
    for number in range(3):
        kernel_cache.load(source(number))
        (path,) = set(folder.iterdir()) - set(paths)
        os.utime(path, (1000 + number, 1000 + number))
        paths.append(path)
    forget(monkeypatch)
    kernel_cache.load(source(0))  # used lately
    if limit == "files":
        monkeypatch.setattr(kernel_cache, "MAX_FILES", 3)
    else:
        monkeypatch.setattr(kernel_cache, "MAX_BYTES", int(3.5 * paths[0].stat().st_size))
    kernel_cache.load(source(3))
    assert [path.exists() for path in paths] == [True, False, True]
    assert len(list(folder.iterdir())) == 3


@needs_c
def test_what_killed_processes_left_is_deleted_after_a_while(folder):
    folder.mkdir(parents=True, mode=0o700)
    for age, name in ((0, "new"), (10_000, "old")):
        (folder / f".build-{name}").mkdir()
        (folder / f".build-{name}" / "kernels.c").write_text("")
        (folder / f".kernels-{name}.so.tmp").write_text("")
        for path in (folder / f".build-{name}", folder / f".kernels-{name}.so.tmp"):
            os.utime(path, (time.time() - age,) * 2)
    (folder / "notes.txt").write_text("not ours")
    kernel_cache.load(source(1))
    names = {path.name for path in folder.iterdir() if path.suffix not in (".so", ".dll")}
    assert names == {".build-new", ".kernels-new.so.tmp", "notes.txt"}
