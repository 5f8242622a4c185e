import os

import numpy
import pytest

from minidl import files
from minidl.data import disk_cache


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path / "deep" / "cache"))
    return tmp_path / "deep" / "cache"


def test_round_trip(place):
    arrays = {"a": numpy.arange(6).reshape(2, 3), "b": numpy.array([1.5, numpy.nan], numpy.float32)}
    disk_cache.store("name", arrays)
    loaded = disk_cache.load("name")
    assert list(loaded) == ["a", "b"]
    for key, array in arrays.items():
        numpy.testing.assert_array_equal(loaded[key], array, strict=True)
    assert [file.name for file in place.iterdir()] == ["name.npz"]


def test_nothing_stored(place):
    assert disk_cache.load("name") is None


def test_store_replaces(place):
    for value in (1, 2):
        disk_cache.store("name", {"a": numpy.array(value)})
    assert disk_cache.load("name")["a"] == 2


def test_objects_are_not_loaded(place):
    place.mkdir(parents=True)
    numpy.savez(place / "name.npz", a=numpy.array([object], dtype=object))
    assert disk_cache.load("name") is None


def test_every_cut_of_the_file_is_noticed(place):
    disk_cache.store("name", {"a": numpy.arange(100)})
    whole = (place / "name.npz").read_bytes()
    for end in range(0, len(whole), 7):
        (place / "name.npz").write_bytes(whole[:end])
        assert disk_cache.load("name") is None


def test_a_bare_array_in_place_of_an_archive(place):
    place.mkdir(parents=True)
    with open(place / "name.npz", "wb") as file:
        numpy.save(file, numpy.arange(3))
    assert disk_cache.load("name") is None


def test_failed_store_leaves_the_old_file_and_no_other(place, monkeypatch):
    disk_cache.store("name", {"a": numpy.array(1)})

    def full(*arguments, **options):
        raise OSError("no space left on device")

    monkeypatch.setattr(numpy, "savez_compressed", full)
    disk_cache.store("name", {"a": numpy.array(2)})
    monkeypatch.setattr(os, "replace", full)
    disk_cache.store("name", {"a": numpy.array(3)})
    assert disk_cache.load("name")["a"] == 1
    assert [file.name for file in place.iterdir()] == ["name.npz"]


def test_folder_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path / "file" / "cache"))
    disk_cache.store("name", {"a": numpy.array(1)})
    assert disk_cache.load("name") is None


def test_no_home(monkeypatch):
    monkeypatch.setenv("MINIDL_CACHE", "~/cache")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as Python does where it knows no home
    with pytest.raises(RuntimeError, match="home directory"):
        files.cache_folder()
    disk_cache.store("name", {"a": numpy.array(1)})
    assert disk_cache.load("name") is None
