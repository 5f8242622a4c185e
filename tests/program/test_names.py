"""Whose code a module holds: the user's, which is followed, or a library's, which is not."""

import pytest

from minidl.program.names import is_users


@pytest.mark.parametrize(
    "file",
    [
        "/usr/lib/python3/dist-packages/library/__init__.py",  # Debian's, which sysconfig does not name
        "/home/somebody/.local/lib/python3.13/site-packages/library/core.py",
        "/lib/python3.14/site-packages/library.py",  # Pyodide's, which sysconfig spells with two slashes
        r"C:\Python313\Lib\site-packages\library\__init__.py",
    ],
)
def test_installed_packages_are_libraries(file):
    assert not is_users({"__name__": "library", "__file__": file})


def test_numpy_is_a_library_wherever_it_lies():
    assert not is_users({"__name__": "numpy.ma.core", "__file__": "/var/task/numpy/ma/core.py"})


@pytest.mark.parametrize("file", ["/home/somebody/site-packages-of-mine/train.py", "train.py", None])
@pytest.mark.parametrize("name", ["train", "__main__"])
def test_other_files_are_the_users(file, name):
    assert is_users({"__name__": name, "__file__": file})


def test_a_library_that_knows_minidl_is_followed():
    import minidl as dl

    file = "/usr/lib/python3/dist-packages/layers/__init__.py"
    assert is_users({"__name__": "layers", "__file__": file, "Dense": dl.Dense})
