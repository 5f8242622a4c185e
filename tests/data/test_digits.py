import importlib
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

from minidl import data

module = importlib.import_module("minidl.data.digits")  # the package's attribute of this name is the function
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def default():
    return data.digits(cache=False)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    """Keep every test away from the user's own cache."""
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def same(first, second):
    return all(numpy.array_equal(a, b) for a, b in zip(first, second, strict=True))


def refuse(*arguments):
    raise AssertionError("generated, though it should have been read from the cache")


def test_shapes_and_types(default):
    for part in default:
        assert isinstance(part, data.LabelledImages)
        assert part.images.shape == (5000, 28, 28, 1)
        assert part.images.dtype == numpy.float32
        assert part.images.flags.c_contiguous
        assert part.labels.shape == (5000,)
        assert part.labels.dtype == numpy.int64
        assert part.angles.shape == (5000,)
        assert part.angles.dtype == numpy.int16


def test_values_are_whole_255ths(default):
    for part in default:
        values = numpy.rint(part.images * 255)
        assert values.min() == 0
        assert values.max() == 255
        assert numpy.array_equal(part.images, values.astype(numpy.uint8) / numpy.float32(255))


def test_500_of_each_class(default):
    for part in default:
        assert numpy.bincount(part.labels).tolist() == [500] * 10


def test_training_is_shuffled_and_test_is_sorted(default):
    train, test = default
    assert (numpy.diff(test.labels) >= 0).all()
    assert 0.05 < (numpy.diff(train.labels) == 0).mean() < 0.15  # of a random order: 0.1


def test_angles_are_uniform_from_minus_45_to_45(default):
    for part in default:
        counts = numpy.bincount(part.angles + 45, minlength=91)
        assert counts.size == 91
        assert counts.min() > 25  # of a mean of 55
        assert counts.max() < 90


def test_statistics_are_the_originals(default):
    for part in default:
        assert part.images.mean() == pytest.approx(0.088, abs=0.006)
        assert part.images.std() == pytest.approx(0.234, abs=0.010)
        assert (part.images == 0).mean() == pytest.approx(0.80, abs=0.02)


def test_is_as_hard_to_predict_and_to_compress_as_the_original(default):
    train, test = (part.images.reshape(-1, 784) for part in default)
    mean = train.mean(axis=0)
    assert rmse(test - mean) == pytest.approx(0.2247, abs=0.01)
    _, directions = numpy.linalg.eigh((train - mean).T @ (train - mean))
    directions = directions[:, -196:]
    assert 0.032 < rmse(test - mean - (test - mean) @ directions @ directions.T) < 0.036


def rmse(difference):
    return numpy.sqrt((difference**2).mean())


def test_nothing_is_cut_off_at_the_border(default):
    for part in default:
        border = part.images.copy()
        border[:, 1:-1, 1:-1] = 0
        assert border.max() == 0


def test_every_image_has_a_digit_near_the_middle(default):
    for part in default:
        ink = part.images[..., 0]
        assert ink.max(axis=(1, 2)).min() > 0.5
        for axis in (1, 2):
            profile = ink.sum(axis=3 - axis)
            centre = (profile * numpy.arange(28)).sum(axis=1) / profile.sum(axis=1)
            assert abs(centre.mean() - 13.5) < 0.5
            assert abs(centre - 13.5).max() < 8


def test_positive_angles_turn_clockwise(default):
    train, _ = default
    ones = train.labels == 1
    tilt = clockwise_tilt(train.images[ones, :, :, 0])
    assert numpy.corrcoef(tilt, train.angles[ones])[0, 1] > 0.9
    assert abs(tilt - train.angles[ones]).mean() < 12  # italics and slant


def clockwise_tilt(images):
    """Return by how many degrees the longest axis of each image is turned from the vertical."""
    weight = images / images.sum(axis=(1, 2), keepdims=True)
    row, column = numpy.mgrid[:28, :28]
    x = column - (weight * column).sum(axis=(1, 2))[:, None, None]
    y = row - (weight * row).sum(axis=(1, 2))[:, None, None]
    xx, yy, xy = ((weight * product).sum(axis=(1, 2)) for product in (x * x, y * y, x * y))
    axis = numpy.degrees(numpy.arctan2(2 * xy, xx - yy) / 2)  # from the x axis towards y, which points down
    return (axis - 90 + 90) % 180 - 90


def test_classes_can_be_told_apart(default):
    """The nearest training image is of the right class for most test images: digits are legible."""
    train, test = default
    some = slice(None, None, 10)
    x, y = train.images.reshape(-1, 784), test.images[some].reshape(-1, 784)
    distance = (x**2).sum(axis=1) - 2 * y @ x.T
    assert (train.labels[distance.argmin(axis=1)] == test.labels[some]).mean() > 0.85


def test_no_image_is_in_both_sets_or_twice(default):
    images = numpy.concatenate([part.images for part in default]).reshape(10000, 784)
    assert len({image.tobytes() for image in images}) == 10000


def test_same_seed_same_images_bit_for_bit():
    first = data.digits(3, train=60, test=40, cache=False)
    second = data.digits(3, train=60, test=40, cache=False)
    assert same(first[0], second[0])
    assert same(first[1], second[1])


def test_images_are_those_of_this_version():
    """Who changes them must raise VERSION (and then these numbers), or old caches would stay in use."""
    train, test = data.digits(0, train=200, test=100, cache=False)
    ink = [float(part.images.sum(dtype=float)) for part in (train, test)]
    assert module.VERSION == 1
    assert ink == pytest.approx([14032.894, 7222.679], abs=0.5)  # rounding may differ between processors
    assert train.labels[:8].tolist() == [8, 9, 4, 9, 5, 2, 9, 6]
    assert train.angles[:8].tolist() == [42, 9, -22, -13, -17, -40, -29, -39]


def test_other_seed_other_images():
    first, second = (data.digits(seed, train=50, test=50, cache=False) for seed in (1, 2))
    assert not numpy.array_equal(first[0].images, second[0].images)
    assert not numpy.array_equal(first[1].images, second[1].images)


def test_streams_of_training_and_test_are_independent():
    small, large = (data.digits(0, train=50, test=test, cache=False) for test in (10, 100))
    assert same(small[0], large[0])
    train, test = data.digits(0, train=50, test=50, cache=False)
    assert not numpy.array_equal(numpy.sort(train.angles), numpy.sort(test.angles))


@pytest.mark.parametrize(("train", "test"), [(1, 1), (7, 13), (501, 25)])
def test_sizes_that_10_does_not_divide(train, test):
    for part, size in zip(data.digits(0, train=train, test=test, cache=False), (train, test), strict=True):
        counts = numpy.bincount(part.labels, minlength=10)
        assert len(part.images) == size
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("options", [{"seed": -1}, {"train": 0}, {"test": -5}])
def test_bad_arguments(options):
    with pytest.raises(ValueError, match=str(next(iter(options.values())))):
        data.digits(**options)


def test_second_call_reads_the_cache(cache_folder, monkeypatch):
    made = data.digits(5, train=30, test=20)
    assert [file.name for file in cache_folder.iterdir()] == [f"digits-v{module.VERSION}-seed5-30-20.npz"]
    monkeypatch.setattr(module, "_generate", refuse)
    read = data.digits(5, train=30, test=20)
    for first, second in zip(made, read, strict=True):
        assert same(first, second)
        assert [array.dtype for array in first] == [array.dtype for array in second]
        assert second.images.flags.writeable


@pytest.mark.parametrize("other", [{"seed": 6}, {"train": 31}, {"test": 21}])
def test_cache_knows_seed_and_sizes(other, monkeypatch):
    options = {"seed": 5, "train": 30, "test": 20}
    data.digits(**options)
    monkeypatch.setattr(module, "_generate", refuse)
    with pytest.raises(AssertionError, match="generated"):
        data.digits(**{**options, **other})


def test_cache_knows_the_version(monkeypatch):
    data.digits(5, train=30, test=20)
    monkeypatch.setattr(module, "_generate", refuse)
    monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    with pytest.raises(AssertionError, match="generated"):
        data.digits(5, train=30, test=20)


def test_cache_false_neither_reads_nor_writes(cache_folder):
    data.digits(5, train=30, test=20, cache=False)
    assert not cache_folder.exists()


@pytest.mark.parametrize("damage", ["cut short", "other bytes", "other arrays", "empty"])
def test_damaged_cache_is_made_again(cache_folder, damage):
    made = data.digits(5, train=30, test=20)
    (file,) = cache_folder.iterdir()
    whole = file.read_bytes()
    if damage == "other arrays":
        numpy.savez(file, train_images=numpy.zeros(3))
    else:
        file.write_bytes({"cut short": whole[:-500], "other bytes": b"no zip file", "empty": b""}[damage])
    again = data.digits(5, train=30, test=20)
    assert same(made[0], again[0])
    assert same(made[1], again[1])
    assert file.read_bytes() == whole


def test_cache_folder_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path / "file" / "cache"))
    train, test = data.digits(5, train=30, test=20)
    assert (len(train.images), len(test.images)) == (30, 20)


def test_import_leaves_scipy_and_matplotlib_alone():
    script = (
        "import sys, types; package = types.ModuleType('minidl'); package.__path__ = ['minidl'];"
        "sys.modules['minidl'] = package; import minidl.data;"
        "sys.exit(' '.join({'scipy', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    finished = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
