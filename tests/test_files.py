import os
import stat
import sys
from pathlib import Path

import pytest

from minidl.files import cache_folder, replacing


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


# --- cache_folder ---------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("MINIDL_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_minidl_cache_decides_everywhere(platform, home, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv("MINIDL_CACHE", str(home / "mine"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "another"))
    assert cache_folder() == home / "mine"


@pytest.mark.parametrize(
    ("platform", "expected"),
    [
        ("linux", (".cache", "minidl")),
        ("darwin", ("Library", "Caches", "minidl")),
        ("win32", ("AppData", "Local", "minidl", "cache")),
    ],
)
def test_each_platform_has_its_place(platform, expected, home, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    assert cache_folder() == home.joinpath(*expected)


@pytest.mark.parametrize(
    ("platform", "variable", "expected"),
    [("linux", "XDG_CACHE_HOME", ("minidl",)), ("win32", "LOCALAPPDATA", ("minidl", "cache"))],
)
def test_a_platforms_own_variable_counts(platform, variable, expected, home, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv(variable, str(home / "caches"))
    assert cache_folder() == (home / "caches").joinpath(*expected)
    monkeypatch.setenv(variable, "")  # as if it were not set
    assert str(cache_folder()).startswith(str(home))


def test_looking_creates_nothing(home):
    cache_folder()
    assert os.listdir(home) == []
