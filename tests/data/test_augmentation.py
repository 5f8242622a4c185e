import numpy
import pytest
import scipy.ndimage

import minidl as dl
from minidl.data import Augmentation, augmented, batches
from minidl.data.augmentation import moved


@pytest.fixture
def images(rng):
    return rng.uniform(size=(6, 9, 7, 2)).astype("float32")


def test_moved_is_scipys_affine_map(images, rng):
    shifts, angles = rng.uniform(-2, 2, (6, 2)), rng.uniform(-1, 1, 6)
    scales = rng.uniform(0.7, 1.3, 6)
    ours = moved(images.astype(float), shifts, angles, scales, 0.25)
    centre = numpy.array([4.0, 3.0])
    for image, result, shift, angle, scale in zip(images, ours, shifts, angles, scales, strict=True):
        cos, sin = numpy.cos(angle), numpy.sin(angle)
        back = numpy.array([[cos, -sin], [sin, cos]]) / scale
        padded = numpy.pad(image.astype(float), ((9, 9), (9, 9), (0, 0)), constant_values=0.25)
        offset = centre + 9 - back @ (centre + shift)
        for channel in range(2):
            expected = scipy.ndimage.affine_transform(
                padded[..., channel], back, offset, output_shape=(9, 7), order=1, cval=0.25
            )
            numpy.testing.assert_allclose(result[..., channel], expected, atol=1e-10)


def test_whole_shifts_and_quarter_turns(images):
    still = numpy.zeros(6), numpy.ones(6)
    down = moved(images, numpy.tile([2.0, -1.0], (6, 1)), *still, 0.0)
    numpy.testing.assert_allclose(down[:, 2:, :-1], images[:, :-2, 1:], rtol=1e-6)
    assert not down[:, :2].any()
    square = images[:, :7]
    turned = moved(square, numpy.zeros((6, 2)), numpy.full(6, numpy.pi / 2), numpy.ones(6), 0.0)
    clockwise = numpy.rot90(square, -1, axes=(1, 2))
    numpy.testing.assert_allclose(turned, clockwise, atol=1e-5)


def test_nothing_asked_for_changes_nothing(images):
    numpy.testing.assert_array_equal(Augmentation()(images), images, strict=True)


def test_flips_are_half_of_the_images(rng):
    images = rng.uniform(size=(400, 3, 4, 1)).astype("float32")
    changed = Augmentation(flip=True, seed=0)(images)
    flipped = (changed == images[:, :, ::-1]).all(axis=(1, 2, 3))
    kept = (changed == images).all(axis=(1, 2, 3))
    assert (flipped ^ kept).all()
    assert 150 < flipped.sum() < 250


def test_noise_has_its_strength(rng):
    images = numpy.zeros((20, 16, 16, 3), "float32")
    noise = Augmentation(noise=0.3, seed=0)(images)
    assert noise.dtype == "float32"
    assert noise.std() == pytest.approx(0.3, rel=0.03)
    assert noise.mean() == pytest.approx(0, abs=0.01)


def test_shifts_stay_within_their_limit():
    images = numpy.zeros((200, 15, 15, 1), "float32")
    images[:, 7, 7] = 1
    changed = Augmentation(shift=3, seed=0)(images)[..., 0]
    rows = (changed.sum(axis=2) * numpy.arange(15)).sum(axis=1) - 7
    assert abs(rows).max() <= 3
    assert abs(rows).max() > 2.5
    assert len(numpy.unique(rows)) > 150  # another one for each image


def test_the_seed_decides(images):
    make = lambda seed: Augmentation(1, 10, 0.1, True, 0.1, seed=seed)
    one, same, other = make(1), make(1), make(2)
    first = one(images)
    numpy.testing.assert_array_equal(first, same(images))
    assert not numpy.array_equal(first, other(images))
    assert not numpy.array_equal(first, one(images))  # and the next time it is another


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
def test_dtypes_stay_and_images_are_not_written_to(dtype, images):
    given = (images * 255).astype(dtype) if dtype == "uint8" else images.astype(dtype)
    before = given.copy()
    changed = Augmentation(shift=1, rotation=5, scale=0.1, flip=True, noise=1e-3, seed=0)(given)
    assert changed.dtype == dtype
    assert changed.shape == given.shape
    numpy.testing.assert_array_equal(given, before)


def test_bytes_do_not_wrap_around():
    images = numpy.array([0, 255], "uint8").reshape(1, 1, 2, 1).repeat(500, axis=0)
    changed = Augmentation(noise=20, seed=0)(images)
    assert changed[:, 0, 0].max() < 128
    assert changed[:, 0, 1].min() > 128


def test_in_mini_batches(images):
    labels = numpy.arange(6)
    cut = augmented(batches(images, labels, batch_size=4), Augmentation(noise=0.1, seed=0))
    assert len(cut) == 2
    (first, numbers), _ = cut
    numpy.testing.assert_array_equal(numbers, [0, 1, 2, 3])
    assert 0.05 < (first - images[:4]).std() < 0.2
    (again, _), _ = cut
    assert not numpy.array_equal(first, again)
    (alone, _) = augmented(batches(images, batch_size=4), Augmentation(noise=0.1))
    assert alone.shape == (4, 9, 7, 2)


def test_a_trainer_takes_them(images):
    network = dl.Network([dl.Flatten(), dl.Dense(126, 3, seed=0)])
    cut = augmented(batches(images, numpy.arange(6) % 3, batch_size=3, seed=0), Augmentation(shift=1, seed=0))
    history = dl.Trainer(network, dl.softmax_cross_entropy, device="cpu").fit(cut, epochs=2, verbose=False)
    assert len(history) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shift": -1}, "shift must be finite and not negative, got -1"),
        ({"noise": numpy.nan}, "noise must be finite"),
        ({"scale": 1}, "scale must be below 1, got 1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**options)


def test_what_is_no_image_is_refused(images):
    for bad in (images[0], images > 0.5, images.astype(int)):
        with pytest.raises(TypeError, match=r"takes images \(batch, height, width, channels\)"):
            Augmentation()(bad)
    with pytest.raises(TypeError, match="augmented takes an Augmentation, got float"):
        augmented([], 0.5)
    assert repr(Augmentation(shift=2, flip=True)) == "Augmentation(shift=2, flip=True)"
