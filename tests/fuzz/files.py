"""Damaged files: what is read, how it is damaged, and what must hold whatever a reader makes of it.

`python -m tests.fuzz.files 20000` tries that many, the readers in turn.
"""

import functools
import gzip
import io
import json
import random
import sys
import tempfile
import tracemalloc
import warnings
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy
import scipy.io

import minidl as dl
from minidl import weights
from minidl.data import read_idx, read_mat
from minidl.errors import CheckpointError
from minidl.training import checkpoints
from minidl.training.checkpoints import Checkpoint
from tests.data import mat73

#: What a reader takes besides three times the file: Python objects, imports, buffers.
SLACK = 3_000_000


def array(shape, dtype="f4"):
    return numpy.random.default_rng(0).integers(0, 200, shape).astype(dtype)


def idx(values):
    head = b"\0\0" + bytes([{"u1": 8, "f4": 13, "f8": 14}[values.dtype.str[1:]], values.ndim])
    shape = b"".join(length.to_bytes(4, "big") for length in values.shape)
    return head + shape + values.astype(values.dtype.newbyteorder(">")).tobytes()


def mat(compressed, **more):
    buffer = io.BytesIO()
    contents = {"XTrain": array((6, 5, 1, 4), "f8") / 255, "anglesTrain": array((4, 1), "i2") - 90}
    contents |= {"labelsTrain": array((4, 1), "u1") % 10, **more}
    scipy.io.savemat(buffer, contents, do_compression=compressed)
    return buffer.getvalue()


NESTED = {"cells": numpy.array([["7", numpy.arange(3.0)]], dtype=object), "struct": {"a": {"b": "text"}}}


def written(write):
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "file")
        return (Path(folder) / "file").read_bytes()


def mat_of_hdf5(path):
    contents = {"XTrain": array((6, 5, 1, 4), "f8") / 255, "anglesTrain": array((4, 1), "i2") - 90}
    mat73.write(path, {**contents, "labelsTrain": array((4, 1), "u1") % 10})


def history():
    table = {"loss": [1.5, None, 0.25], "rmse": [1.0, 0.5, 0.25]}
    values = {
        "settings": {"epochs": 3},
        "best_step": None,
        "returned": "last",
        "stop_reason": "",
        "seconds": 1.5,
    }
    return json.dumps({"steps": table, "epochs": table, "validation": table, **values}).encode()


def read_images(path):
    images, labels, angles = read_mat(path)
    return [images, *(x for x in (labels, angles) if x is not None)]


STATE = {
    "a.weight": array((8, 4)),
    "a.bias": array(4, "f2"),
    "count": array((), "i8"),
    "empty": array((0, 3)),
}
CHECKPOINT = Checkpoint(STATE, {"step": 7, "history": {"loss": [1.0]}})

#: By name: the whole file, its reader (which returns arrays), and whether any change must be noticed.
KINDS = {
    "weights": (written(lambda path: weights.save(STATE, path)), lambda p: [*weights.read(p).values()], True),
    "checkpoint": (
        written(lambda path: checkpoints.write(path, CHECKPOINT)),
        lambda p: [*checkpoints.read(p).arrays.values()],
        True,
    ),
    "idx": (idx(array((7, 5, 4), "u1")), lambda p: [read_idx(p)], False),
    "idx of float64": (idx(array((7, 5), "f8")), lambda p: [read_idx(p)], False),
    "gz": (gzip.compress(idx(array((7, 50, 40), "u1")), mtime=0), lambda p: [read_idx(p)], True),
    "mat": (mat(False), read_images, False),
    "compressed mat": (mat(True), read_images, True),
    "nested mat": (mat(False, **NESTED), read_images, False),
    "compressed nested mat": (mat(True, **NESTED), read_images, True),
    **({"mat 7.3": (written(mat_of_hdf5), read_images, False)} if find_spec("h5py") else {}),
    "json": (history(), lambda p: [numpy.array(x) for x in dl.History.from_json(p).steps.values()], False),
}


def damaged(content, random):
    """Return a file with one to three kinds of damage."""
    content = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        at = random.randrange(len(content) + 1)
        kind = random.randrange(7)
        if kind == 0:
            del content[at:]
        elif kind == 1 and content:
            content[at % len(content)] ^= 1 << random.randrange(8)
        elif kind == 2:
            content[at : at + random.choice((1, 2, 4, 8))] = random.choice(
                [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80"]
            )
        elif kind == 3:
            content[at:at] = random.randbytes(random.choice((1, 8, 100)))
        elif kind == 4:
            del content[at : at + random.choice((1, 4, 8, 64))]
        elif kind == 5:
            start = random.randrange(len(content) + 1)
            content[at:at] = content[start : start + random.choice((8, 64, 300))]
        else:
            content[at:] = bytes(len(content) - at)
        if not content:
            break
    return bytes(content)


@functools.cache
def unharmed(name):
    content, read, _ = KINDS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(content)
        return read(path)


def stated_size(name, content):
    """Return how many bytes the unpacked file says it has, and holds: these may be taken."""
    if name == "gz":
        try:
            return len(zlib.decompressobj(31).decompress(content, 1 << 22))
        except zlib.error:
            return 0
    return 16_000 if "compressed" in name else 0


def check(name, content, path):
    """Read a damaged file: an error names it, and what is returned is right, or as right as can be known.

    Returns whether it was read.
    """
    whole, read, is_checked = KINDS[name]
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = read(path)
    except (ValueError, CheckpointError) as error:
        if path.name not in str(error):
            raise AssertionError(f"no name of the file in {error!r}") from error
        return False
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak <= 3 * max(len(content), stated_size(name, content)) + SLACK, f"{peak} bytes of memory"
    right = unharmed(name)
    if is_checked and content != whole:
        # What is there is right. Variables of a MAT file can be missing where it was cut between two of them.
        assert len(found) == len(right) or "mat" in name
        for x in found:
            assert any(x.dtype == y.dtype and numpy.array_equal(x, y) for y in right), "other numbers"
    return True


def main(count):
    chosen, read = random.Random(1), dict.fromkeys(KINDS, 0)
    with tempfile.TemporaryDirectory() as folder:
        for i in range(count):
            name = list(KINDS)[i % len(KINDS)]
            content = damaged(KINDS[name][0], chosen)
            path = Path(folder) / f"file-{i}"
            try:
                read[name] += check(name, content, path)
            except BaseException:
                kept = Path(tempfile.gettempdir()) / f"damaged-{name.replace(' ', '-')}"
                kept.write_bytes(content)
                print(f"file {i}, {name}, is kept as {kept}", file=sys.stderr)
                raise
            path.unlink()
    print(f"{count} files; read in spite of their damage:", read)


if __name__ == "__main__":
    main(int(sys.argv[1]))
