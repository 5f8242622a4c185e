"""Images changed at random while they are trained on: shifted, turned, flipped, and with noise."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy


class Augmentation:
    """Random changes of images, another one for each image and each time.

    Images are (batch, height, width, channels), floats or uint8; shapes and dtypes stay. What comes in
    from outside of an image is ``fill``. The images given are not changed.

    Parameters
    ----------
    shift : shift by up to so many pixels, in both directions; fractions of pixels are interpolated
    rotation : turn by up to so many degrees, in both directions
    scale : enlarge or shrink by up to this share, for example 0.1
    flip : whether to mirror every other image, left to right
    noise : the standard deviation of Gaussian noise for each value, in the unit of the images
    fill : the value of what comes in from outside
    seed : an integer or a Generator of NumPy; the same one gives the same sequence of changes

    Examples
    --------
    >>> from minidl.data import Augmentation, augmented, batches
    >>> images, labels = numpy.zeros((256, 28, 28, 1), "float32"), numpy.zeros(256, int)
    >>> mini_batches = batches(images, labels, batch_size=64, shuffle=True, seed=0)
    >>> mini_batches = augmented(mini_batches, Augmentation(shift=2, rotation=10, seed=0))
    >>> len(mini_batches)  # trainer.fit(mini_batches) takes them
    4
    """

    def __init__(
        self,
        shift: float = 0.0,
        rotation: float = 0.0,
        scale: float = 0.0,
        flip: bool = False,
        noise: float = 0.0,
        fill: float = 0.0,
        seed: int | numpy.random.Generator | None = None,
    ):
        for name, value in (("shift", shift), ("rotation", rotation), ("noise", noise), ("scale", scale)):
            if not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"Augmentation: {name} must be finite and not negative, got {value}")
        if scale >= 1:
            raise ValueError(f"Augmentation: scale must be below 1, got {scale}")
        self.shift, self.rotation, self.scale, self.flip = shift, rotation, scale, flip
        self.noise, self.fill = noise, fill
        self.random = numpy.random.default_rng(seed)

    def __repr__(self) -> str:
        settings = {name: x for name, x in vars(self).items() if name != "random" and x}
        return f"Augmentation({', '.join(f'{name}={x}' for name, x in settings.items())})"

    def __call__(self, images: Any) -> numpy.ndarray:
        """Return images changed, an array of the same shape and dtype."""
        images = numpy.asarray(images)
        if images.ndim != 4 or images.dtype.kind not in "fu":
            raise TypeError(
                "Augmentation takes images (batch, height, width, channels) of floats or uint8, got "
                f"{images.dtype} {images.shape}"
            )
        count, working = len(images), numpy.float64 if images.dtype == "f8" else numpy.float32
        changed: numpy.ndarray = images.astype(working)
        if self.flip:
            mirrored = self.random.random(count) < 0.5
            changed[mirrored] = changed[mirrored, :, ::-1]
        if self.shift or self.rotation or self.scale:
            shifts = self.random.uniform(-self.shift, self.shift, (count, 2))
            angles = numpy.deg2rad(self.random.uniform(-self.rotation, self.rotation, count))
            scales = 1 + self.random.uniform(-self.scale, self.scale, count)
            changed = moved(changed, shifts, angles, scales, self.fill)
        if self.noise:
            changed += (self.noise * self.random.standard_normal(changed.shape)).astype(working)
        if images.dtype.kind == "u":
            changed = changed.round().clip(0, numpy.iinfo(images.dtype).max)
        return changed.astype(images.dtype)


def moved(
    images: numpy.ndarray, shifts: numpy.ndarray, angles: numpy.ndarray, scales: numpy.ndarray, fill: float
) -> numpy.ndarray:
    """Return images turned around their centres, scaled, then shifted; bilinear interpolation.

    Parameters
    ----------
    images : (n, height, width, channels)
    shifts : (n, 2), down and to the right, in pixels
    angles : (n,), radians, clockwise as one sees it
    scales : (n,), above 1 enlarges
    fill : the value outside
    """
    n, height, width, _ = images.shape
    cos, sin = (f(angles)[:, None, None] / scales[:, None, None] for f in (numpy.cos, numpy.sin))
    rows = numpy.arange(height)[None, :, None] - (height - 1) / 2 - shifts[:, 0, None, None]
    columns = numpy.arange(width)[None, None, :] - (width - 1) / 2 - shifts[:, 1, None, None]
    # Where in the given image each pixel of the result comes from: the opposite turn.
    row = cos * rows - sin * columns + (height - 1) / 2
    column = sin * rows + cos * columns + (width - 1) / 2
    padded = numpy.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=fill)
    row, column = numpy.clip(row + 1, 0, height + 1), numpy.clip(column + 1, 0, width + 1)
    top, left = (numpy.minimum(x.astype(int), limit) for x, limit in ((row, height), (column, width)))
    down, right = ((x - i)[..., None].astype(images.dtype) for x, i in ((row, top), (column, left)))
    image = numpy.arange(n)[:, None, None]
    above = padded[image, top, left] * (1 - right) + padded[image, top, left + 1] * right
    below = padded[image, top + 1, left] * (1 - right) + padded[image, top + 1, left + 1] * right
    result: numpy.ndarray = above * (1 - down) + below * down
    return result


class Augmented:
    """An iterable over mini-batches whose inputs are changed; made by ``augmented``."""

    def __init__(self, mini_batches: Iterable[Any], augmentation: Augmentation):
        self.mini_batches, self.augmentation = mini_batches, augmentation

    def __len__(self) -> int:
        return len(self.mini_batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        for batch in self.mini_batches:
            if isinstance(batch, (tuple, list)):
                yield (self.augmentation(batch[0]), *batch[1:])
            else:
                yield self.augmentation(batch)


def augmented(mini_batches: Iterable[Any], augmentation: Augmentation) -> Augmented:
    """Return an iterable over mini-batches with the first array of each changed; others stay as they are."""
    if not callable(augmentation):
        raise TypeError(f"augmented takes an Augmentation, got {type(augmentation).__name__}")
    return Augmented(mini_batches, augmentation)
