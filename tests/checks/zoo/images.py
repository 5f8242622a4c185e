"""Convolutions, pooling, and what is built of them."""

import numpy

import minidl as dl
from tests.checks.zoo.registry import right, weight


class ConvolutionBlock(dl.Layer):
    def __init__(self, inside, outside, rng):
        self.kernel = weight(rng, 3, 3, inside, outside)
        self.bias = dl.Parameter(dl.zeros(outside))

    def forward(self, x):
        return dl.relu(dl.conv2d(x, self.kernel, padding="same") + self.bias)


@right((4, 4, 2))
def convolution(seed):
    return ConvolutionBlock(2, 3, numpy.random.default_rng(seed))


class LoopConvolution(dl.Layer):
    """A convolution in one dimension by a loop over its taps."""

    def __init__(self, inside, outside, taps, rng):
        self.taps = [weight(rng, inside, outside) for _ in range(taps)]

    def forward(self, x):
        steps = x.shape[1] - len(self.taps) + 1
        y = 0.0
        for i, tap in enumerate(self.taps):
            y = y + x[:, i : i + steps] @ tap
        return y


@right((6, 2))
def loop_convolution(seed):
    return LoopConvolution(2, 3, 3, numpy.random.default_rng(seed))


class Residual(dl.Layer):
    def __init__(self, channels, seed):
        self.first = dl.Conv2D(channels, channels, 3, padding="same", seed=seed)
        self.norm = dl.BatchNorm(channels)
        self.second = dl.Conv2D(channels, channels, 3, padding="same", seed=seed + 1)
        self.scale = dl.Parameter(dl.zeros(()))  # the branch begins at 0

    def forward(self, x):
        return x + self.scale * self.second(dl.relu(self.norm(self.first(x))))


@right((3, 3, 2))
def residual(seed):
    return Residual(2, seed)


class SqueezeExcite(dl.Layer):
    def __init__(self, channels, hidden, seed):
        self.squeeze = dl.Dense(channels, hidden, seed=seed)
        self.excite = dl.Dense(hidden, channels, seed=seed + 1)

    def forward(self, x):
        pooled = x.mean(axis=(1, 2))
        gate = dl.sigmoid(self.excite(dl.relu(self.squeeze(pooled))))
        return x * gate.reshape(-1, 1, 1, x.shape[-1])


@right((3, 3, 4))
def squeeze_excite(seed):
    return SqueezeExcite(4, 3, seed)


class PixelShuffle(dl.Layer):
    def __init__(self, channels, factor, seed):
        self.factor = factor
        self.expand = dl.Conv2D(channels, channels * factor**2, 1, seed=seed)

    def forward(self, x):
        b, h, w, c = x.shape
        r = self.factor
        y = self.expand(x).reshape(b, h, w, r, r, c)
        return y.transpose(0, 1, 3, 2, 4, 5).reshape(b, h * r, w * r, c)


@right((2, 3, 2))
def pixel_shuffle(seed):
    return PixelShuffle(2, 2, seed)


class SpatialPyramid(dl.Layer):
    def __init__(self, levels):
        self.levels = levels

    def forward(self, x):
        pooled = [dl.max_pool2d(x, n).reshape(x.shape[0], -1) for n in self.levels]
        return dl.concatenate(pooled, axis=1)


@right((4, 4, 2))
def spatial_pyramid(seed):
    return SpatialPyramid([1, 2, 4])


class CoordinateConvolution(dl.Layer):
    """Adds the coordinates of each pixel as channels."""

    def __init__(self, channels, outside, seed):
        self.mix = dl.Conv2D(channels + 2, outside, 1, seed=seed)

    def forward(self, x):
        b, h, w, _ = x.shape
        rows = dl.linspace(-1, 1, h).astype(x.dtype).reshape(1, h, 1, 1)
        columns = dl.linspace(-1, 1, w).astype(x.dtype).reshape(1, 1, w, 1)
        here = [dl.broadcast_to(grid, (b, h, w, 1)) for grid in (rows, columns)]
        return self.mix(dl.concatenate([x, *here], axis=-1))


@right((3, 4, 2))
def coordinate_convolution(seed):
    return CoordinateConvolution(2, 3, seed)


class UNet(dl.Layer):
    def __init__(self, channels, seed):
        self.down = dl.Conv2D(channels, 3, 3, padding="same", seed=seed)
        self.inner = dl.Conv2D(3, 3, 3, padding="same", seed=seed + 1)
        self.up = dl.Conv2D(6, channels, 3, padding="same", seed=seed + 2)

    def forward(self, x):
        skip = dl.relu(self.down(x))
        low = dl.relu(self.inner(dl.average_pool2d(skip, 2)))
        return self.up(dl.concatenate([skip, dl.upsample2d(low, 2)], axis=-1))


@right((4, 4, 1))
def unet(seed):
    return UNet(1, seed)


class Capsules(dl.Layer):
    """Routes votes of capsules to others by agreement, in three rounds (Sabour et al., 2017)."""

    def __init__(self, inside, outside, size, rng):
        self.weight = weight(rng, inside, size, outside * size)
        self.outside, self.size = outside, size

    def forward(self, x):
        b, n, _ = x.shape
        votes = dl.einsum("bni,nio->bno", x, self.weight).reshape(b, n, self.outside, self.size)
        logits = dl.zeros((b, n, self.outside), x.dtype)
        for _ in range(3):
            share = dl.softmax(logits, axis=2)
            total = (share.reshape(b, n, self.outside, 1) * votes).sum(axis=1)
            square = (total * total).sum(axis=-1, keepdims=True)
            out = total * (square / (1 + square)) / dl.sqrt(square + 1e-7)
            logits = logits + (votes * out.reshape(b, 1, self.outside, self.size)).sum(axis=-1)
        return out


@right((3, 2))
def capsules(seed):
    return Capsules(3, 2, 2, numpy.random.default_rng(seed))


class Maxout(dl.Layer):
    def __init__(self, inside, outside, pieces, rng):
        self.weight = weight(rng, inside, outside * pieces)
        self.bias = dl.Parameter(dl.zeros(outside * pieces))
        self.pieces = pieces

    def forward(self, x):
        y = x @ self.weight + self.bias
        return y.reshape(x.shape[0], -1, self.pieces).max(axis=-1)


@right((4,))
def maxout(seed):
    return Maxout(4, 3, 2, numpy.random.default_rng(seed))


class BlurPool(dl.Layer):
    """Smooths with a fixed kernel, which is state and no Parameter, and takes every second pixel."""

    def __init__(self, channels):
        taps = numpy.array([1.0, 2.0, 1.0], "float32") / 4
        kernel = numpy.outer(taps, taps).reshape(3, 3, 1, 1)
        self.kernel = dl.tensor(numpy.tile(kernel, (1, 1, 1, channels)).astype("float32"))

    def forward(self, x):
        return dl.conv2d(x, self.kernel, stride=2, padding="same", groups=x.shape[-1])


@right((4, 4, 2))
def blur_pool(seed):
    return BlurPool(2)
