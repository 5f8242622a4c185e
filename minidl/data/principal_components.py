"""Principal component analysis: the best linear code, which every autoencoder has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from operator import index
from typing import Any

import numpy

from minidl import devices
from minidl.data.validation import check_finite
from minidl.tensor import Tensor


@dataclass(frozen=True)
class PCA:
    """What `pca` found: components and mean of observations, which have any shape.

    Attributes
    ----------
    mean : the mean observation, flat: (features,)
    components : one in each row, (components, features), orthonormal, by falling variance
    variances : the variance along each component, (components,)
    """

    mean: numpy.ndarray
    components: numpy.ndarray
    variances: numpy.ndarray

    def encode(self, x: Any) -> numpy.ndarray:
        """Return the codes (N, components) of observations (N, ...)."""
        x = _flat(x)
        if x.shape[1] != len(self.mean):
            raise ValueError(f"this PCA is of {len(self.mean)} features; got observations of {x.shape[1]}")
        codes: numpy.ndarray = (x - self.mean) @ self.components.T
        return codes

    def decode(self, codes: Any) -> numpy.ndarray:
        """Return the observations (N, features) that codes (N, components) stand for."""
        codes = _array(codes)
        if codes.ndim != 2 or codes.shape[1] != len(self.components):
            raise ValueError(f"this PCA has codes (N, {len(self.components)}); got {codes.shape}")
        observations: numpy.ndarray = codes @ self.components + self.mean
        return observations

    def reconstruct(self, x: Any, low: float | None = None, high: float | None = None) -> numpy.ndarray:
        """Return what decoding the codes of observations (N, ...) gives, in their shape.

        With ``low=0, high=1`` it is clipped, which brings it closer to images with such values.
        """
        y = self.decode(self.encode(x)).reshape(_array(x).shape)
        if low is not None:
            y = numpy.maximum(y, low)
        return y if high is None else numpy.minimum(y, high)


def pca(x: Any, components: int) -> PCA:
    """Return the principal components of observations (N, ...), of which all axes but the first are features.

    The computation is in float64, by the eigenvectors of the covariance; results have the dtype of x. Of the
    two signs of a component, the one is taken that makes its largest element positive.

    Raises
    ------
    ValueError
        There are fewer observations or features than components, or values are not finite.

    Examples
    --------
    >>> import numpy
    >>> x = numpy.array([[0.0, 0.0], [1.0, 2.0], [2.0, 4.0]])
    >>> found = pca(x, components=1)
    >>> found.mean.tolist(), float(found.variances[0].round(6))
    ([1.0, 2.0], 5.0)
    >>> found.reconstruct(x, low=0).round(6).tolist()
    [[0.0, 0.0], [1.0, 2.0], [2.0, 4.0]]
    """
    flat = _flat(x)
    check_finite(flat, "x of pca()")
    count = index(components)
    if not 1 <= count <= min(flat.shape):
        raise ValueError(
            f"pca takes 1 to {min(flat.shape)} components of {len(flat)} observations with "
            f"{flat.shape[1]} features; got {count}"
        )
    dtype = flat.dtype if flat.dtype.kind == "f" else numpy.dtype(numpy.float64)
    centred = flat.astype(numpy.float64)
    mean = centred.mean(axis=0)
    centred -= mean
    covariance = centred.T @ centred / max(1, len(flat) - 1)
    variances, columns = numpy.linalg.eigh(covariance)  # in rising order
    rows, variances = columns.T[::-1][:count], variances[::-1][:count]
    largest = numpy.take_along_axis(rows, abs(rows).argmax(axis=1)[:, None], axis=1)
    return PCA(
        mean.astype(dtype),
        (rows * numpy.where(largest < 0, -1, 1)).astype(dtype),
        numpy.maximum(variances, 0).astype(dtype),
    )


def _array(x: Any) -> numpy.ndarray:
    x = x.data if isinstance(x, Tensor) else x
    return devices.to_numpy(x) if devices.is_array(x) else numpy.asarray(x)


def _flat(x: object) -> numpy.ndarray:
    x = _array(x)
    if x.ndim < 2 or x.dtype.kind not in "fiu":
        raise ValueError(f"PCA takes numbers (observations, ...); got {x.dtype} {x.shape}")
    return x.reshape(len(x), -1)
