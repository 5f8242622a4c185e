from pathlib import Path

import pytest

from minidl import files


def test_replacing_leaves_the_old_file_if_anything_fails(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), files.replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    with files.replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    assert path.stat().st_mode == ordinary.stat().st_mode


@pytest.mark.parametrize(
    ("platform", "variable", "expected"),
    [
        ("linux", None, ("home", ".cache", "minidl")),
        ("linux", "XDG_CACHE_HOME", ("elsewhere", "minidl")),
        ("darwin", None, ("home", "Library", "Caches", "minidl")),
        ("win32", None, ("home", "AppData", "Local", "minidl", "cache")),
        ("win32", "LOCALAPPDATA", ("elsewhere", "minidl", "cache")),
        ("linux", "MINIDL_CACHE", ("elsewhere",)),
    ],
)
def test_folder(platform, variable, expected, monkeypatch):
    for name in ("MINIDL_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(files.sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("home"))
    if variable:
        monkeypatch.setenv(variable, "elsewhere")
    assert files.cache_folder() == Path(*expected)
