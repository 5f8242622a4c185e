import os
import stat
import sys
import threading
from pathlib import Path

import pytest

from minidl.files import STALE_SECONDS, cache_folder, replacing


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "result.bin"
    path.write_bytes(b"old")
    return path


@pytest.mark.parametrize("kind", [str, Path])
def test_the_file_appears_when_the_block_ends(kind, tmp_path):
    path = tmp_path / "new.bin"
    with replacing(kind(path)) as temporary:
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["new.bin"]


def test_readers_see_the_old_file_until_then(target):
    with replacing(target) as temporary:
        temporary.write_bytes(b"new")
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_the_old_file_and_nothing_else(error, target):
    def fails_halfway():
        with replacing(target) as temporary:
            temporary.write_bytes(b"half of the n")
            raise error

    with pytest.raises(error):
        fails_halfway()
    assert target.read_bytes() == b"old"
    assert os.listdir(target.parent) == [target.name]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_at_the_very_end_does_too(step, target, monkeypatch):
    def fails(*arguments):
        raise OSError("the disk is gone")

    monkeypatch.setattr(os, step, fails)
    with pytest.raises(OSError, match="the disk is gone"), replacing(target) as temporary:
        temporary.write_bytes(b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(target.parent) == [target.name]


def test_two_writers_do_not_mix(target):
    with replacing(target) as first, replacing(target) as second:
        first.write_bytes(b"first")
        second.write_bytes(b"second")
        assert first != second
    assert target.read_bytes() == b"first"  # the block that ended last
    assert os.listdir(target.parent) == [target.name]


def test_a_relative_path_is_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with replacing("new.bin") as temporary:
        temporary.write_bytes(b"new")
    assert (tmp_path / "new.bin").read_bytes() == b"new"


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"), replacing(tmp_path / "nowhere" / "new.bin"):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="no permission bits")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_the_file_gets_the_usual_permissions(umask, mode, target):
    outer = os.umask(umask)
    try:
        with replacing(target) as temporary:
            temporary.write_bytes(b"new")
        assert stat.S_IMODE(target.stat().st_mode) == mode
        assert os.umask(umask) == umask
    finally:
        os.umask(outer)


@pytest.mark.skipif(sys.platform == "win32", reason="no permission bits")
def test_the_umask_of_the_process_is_never_changed(target):
    """Another thread creates files all the time; none may get more permissions than its umask allows."""
    outer, interval = os.umask(0o077), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads take turns at nearly every instruction
    done, modes = threading.Event(), set()

    def create_files():
        while not done.is_set():
            path = target.with_name("of another thread")
            with open(path, "w") as file:
                modes.add(stat.S_IMODE(os.fstat(file.fileno()).st_mode))
            path.unlink()

    thread = threading.Thread(target=create_files)
    thread.start()
    try:
        for _ in range(500):
            with replacing(target) as temporary:
                temporary.write_bytes(b"new")
    finally:
        done.set()
        thread.join()
        sys.setswitchinterval(interval)
        os.umask(outer)
    assert modes == {0o600}


@pytest.mark.parametrize("name", ["n" * 255, "ä" * 127, "n" * 240 + ".safetensors"])
def test_the_longest_names_can_be_saved(name, tmp_path):
    path = tmp_path / name
    for content in (b"first", b"second"):
        with replacing(path) as temporary:
            temporary.write_bytes(content)
        assert path.read_bytes() == content
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("relative", [True, False])
def test_a_symbolic_link_stays_and_its_file_is_replaced(target, tmp_path, relative):
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "result.bin"
    link.symlink_to("../result.bin" if relative else target)
    with replacing(link) as temporary:
        temporary.write_bytes(b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert not target.is_symlink()
    assert os.listdir(link.parent) == [link.name]


def test_a_link_to_a_file_that_is_not_there_makes_it(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "new.bin")
    with replacing(link) as temporary:
        temporary.write_bytes(b"new")
    assert link.is_symlink()
    assert (tmp_path / "new.bin").read_bytes() == b"new"


def test_a_link_to_itself_is_refused(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(link)
    with pytest.raises((OSError, RuntimeError)), replacing(link):
        pass
    assert link.is_symlink()


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_not_a_file_is_refused_and_stays(kind, tmp_path):
    path = tmp_path / kind
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(OSError, match="is not a file"), replacing(path):
        pass
    assert os.listdir(tmp_path) == [kind]
    assert not path.is_file()


@pytest.mark.parametrize("name", ["result.bin", "n" * 250])
def test_what_killed_processes_left_is_removed_once_it_is_old(name, tmp_path):
    path = tmp_path / name
    with replacing(path) as temporary:
        temporary.write_bytes(b"new")
    left = temporary.with_name(temporary.name[: -len("00000000.tmp")] + "abcd1234.tmp")
    mine = tmp_path / f"{name[:20]}.old.tmp"  # not a name that replacing() gives
    for age, there in ((STALE_SECONDS - 60, True), (STALE_SECONDS + 60, False)):
        for other in (left, mine):
            other.write_bytes(b"half")
            written = path.stat().st_mtime - age
            os.utime(other, (written, written))
        with replacing(path) as temporary:
            temporary.write_bytes(b"new")
        assert left.exists() == there
        assert mine.exists()


# --- cache_folder ---------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("MINIDL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "USERPROFILE", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path))
    return tmp_path


def test_minidl_cache_decides(home, monkeypatch):
    monkeypatch.setenv("MINIDL_CACHE", str(home / "mine"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "another"))
    assert cache_folder() == home / "mine"


def test_the_home_folder_may_be_a_tilde(home, monkeypatch):
    monkeypatch.setenv("MINIDL_CACHE", "~/mine")
    assert cache_folder() == home / "mine"


def test_a_relative_cache_folder_is_made_absolute(home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setenv("MINIDL_CACHE", "mine")
    assert cache_folder() == home / "mine"


def test_an_empty_minidl_cache_counts_as_unset(home, monkeypatch):
    usual = cache_folder()
    monkeypatch.setenv("MINIDL_CACHE", "")
    assert cache_folder() == usual


def test_the_usual_place_is_in_the_home_folder(home):
    folder = cache_folder()
    assert folder.is_relative_to(home)
    assert "minidl" in folder.parts
    if sys.platform == "linux":
        assert folder == home / ".cache" / "minidl"


@pytest.mark.skipif(sys.platform != "linux", reason="a variable of Linux desktops")
def test_xdg_cache_home_counts(home, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "caches"))
    assert cache_folder() == home / "caches" / "minidl"
    monkeypatch.setenv("XDG_CACHE_HOME", "")  # counts as unset
    assert cache_folder() == home / ".cache" / "minidl"


def test_looking_creates_nothing(home):
    cache_folder()
    assert os.listdir(home) == []
