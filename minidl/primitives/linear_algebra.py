"""Matrix products, for vectors, matrices and stacks of matrices, as NumPy's ``@``."""

from __future__ import annotations

from typing import Any

from minidl.primitives.primitive import Primitive
from minidl.primitives.shape import reshape, swapaxes
from minidl.tensor import Tensor

matmul_: Primitive = Primitive(
    "matmul",
    lambda xp, a, b, out=None: xp.matmul(a, b, out=out),
    gradients=(
        lambda g, out, a, b: g @ swapaxes(b, -1, -2),
        lambda g, out, a, b: swapaxes(a, -1, -2) @ g,
    ),
    promotes=True,
)


def matmul(a: Any, b: Any) -> Tensor:
    """Return the matrix product of a (..., n, k) and b (..., k, m): (..., n, m).

    A vector is taken as a row on the left and as a column on the right, and that axis is missing
    from the result. Leading axes broadcast.
    """
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError(f"matmul needs at least one axis on each side, got shapes {a.shape} and {b.shape}")
    if a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise ValueError(
            f"matmul: the last axis of shape {a.shape} and the first matrix axis of shape {b.shape} differ"
        )
    rows = reshape(a, (1, *a.shape)) if a.ndim == 1 else a
    columns = reshape(b, (*b.shape, 1)) if b.ndim == 1 else b
    product = matmul_(rows, columns)
    shape = list(product.shape)
    if b.ndim == 1:
        del shape[-1]
    if a.ndim == 1:
        del shape[-1 if b.ndim == 1 else -2]
    return reshape(product, shape)
