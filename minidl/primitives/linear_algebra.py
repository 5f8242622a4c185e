"""Products of vectors, matrices and stacks of them, and the functions of square matrices: NumPy's meaning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from minidl.primitives.axes import ordered_axes
from minidl.primitives.elementwise import exp, multiply
from minidl.primitives.indexing import tril
from minidl.primitives.primitive import Primitive
from minidl.primitives.shape import expand_dims, ravel, reshape, squeeze, swapaxes, transpose
from minidl.tensor import Tensor, TensorLike, as_tensor, as_tensors

# --- products -------------------------------------------------------------------------------------

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
    a, b = as_tensors((a, b))
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError(f"matmul needs at least one axis on each side, got shapes {a.shape} and {b.shape}")
    if a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise ValueError(
            f"matmul: the last axis of shape {a.shape} and the first matrix axis of shape {b.shape} differ"
        )
    if a.ndim > 2 and b.ndim == 2:  # one large product, and one for the gradient of b, instead of a stack
        rows = reshape(a, (math.prod(a.shape[:-1]), a.shape[-1]))
        return reshape(matmul_(rows, b), (*a.shape[:-1], b.shape[-1]))
    rows = reshape(a, (1, *a.shape)) if a.ndim == 1 else a
    columns = reshape(b, (*b.shape, 1)) if b.ndim == 1 else b
    product = matmul_(rows, columns)
    shape = list(product.shape)
    if b.ndim == 1:
        del shape[-1]
    if a.ndim == 1:
        del shape[-1 if b.ndim == 1 else -2]
    return reshape(product, shape)


def tensordot(a: Any, b: Any, axes: Any = 2) -> Tensor:
    """Return the sum of products over axes of a and b; what is left of a's axes comes first.

    ``axes`` is a number (the last ones of a with the first ones of b) or two axes or lists of axes.
    """
    a, b = as_tensors((a, b))
    if isinstance(axes, Sequence):
        of_a, of_b = (tuple(part) if isinstance(part, Sequence) else (part,) for part in axes)
    else:
        of_a, of_b = tuple(range(a.ndim - axes, a.ndim)), tuple(range(axes))
    of_a = ordered_axes(of_a, a.ndim, "tensordot")
    of_b = ordered_axes(of_b, b.ndim, "tensordot")
    summed = tuple(a.shape[i] for i in of_a)
    if summed != tuple(b.shape[i] for i in of_b):
        raise ValueError(
            f"tensordot: axes {of_a} of shape {a.shape} and {of_b} of shape {b.shape} differ in length"
        )
    kept_a = [i for i in range(a.ndim) if i not in of_a]
    kept_b = [i for i in range(b.ndim) if i not in of_b]
    length = math.prod(summed)
    shape_a, shape_b = tuple(a.shape[i] for i in kept_a), tuple(b.shape[i] for i in kept_b)
    rows = reshape(transpose(a, [*kept_a, *of_a]), (math.prod(shape_a), length))
    columns = reshape(transpose(b, [*of_b, *kept_b]), (length, math.prod(shape_b)))
    return reshape(matmul_(rows, columns), shape_a + shape_b)


def dot(a: Any, b: Any) -> Tensor:
    """Return the sum of products over the last axis of a and the last but one (a vector's only one) of b."""
    a, b = as_tensors((a, b))
    if a.ndim == 0 or b.ndim == 0:
        return multiply(a, b)
    return tensordot(a, b, (a.ndim - 1, max(b.ndim - 2, 0)))


def inner(a: Any, b: Any) -> Tensor:
    """Return the sum of products over the last axes of a and b."""
    a, b = as_tensors((a, b))
    return multiply(a, b) if a.ndim == 0 or b.ndim == 0 else tensordot(a, b, (a.ndim - 1, b.ndim - 1))


def outer(a: Any, b: Any) -> Tensor:
    """Return the products of each element of a, in rows, with each element of b."""
    a, b = as_tensors((a, b))
    return multiply(reshape(a, (-1, 1)), ravel(b))


# --- functions of square matrices -----------------------------------------------------------------


def _linalg(compute: Any) -> Any:
    """Let a function of the array module's linalg be written to ``out``, which it does not take itself."""

    def forward(xp: Any, *arrays: Any, out: Any = None) -> Any:
        result = compute(xp.linalg, *arrays)
        if out is None:
            return result
        xp.copyto(out, result)
        return out

    return forward


def _transposed(x: Any) -> Any:
    return swapaxes(x, -1, -2)


inv_: Primitive = Primitive(
    "inv",
    _linalg(lambda linalg, x: linalg.inv(x)),
    gradients=(lambda g, out, x: -(_transposed(out) @ g @ _transposed(out)),),
    promotes_to_float=True,
)
solve_: Primitive = Primitive(
    "solve",
    _linalg(lambda linalg, a, b: linalg.solve(a, b)),
    gradients=(
        lambda g, out, a, b: -(solve_(_transposed(a), g) @ _transposed(out)),
        lambda g, out, a, b: solve_(_transposed(a), g),
    ),
    promotes_to_float=True,
)


def _cholesky_gradient(g: Any, out: Any, x: Any) -> Any:
    """Return the gradient of a symmetric matrix behind its Cholesky factor (Murray, 2016, equation 10)."""
    product = _transposed(out) @ g
    halved = 0.5 * (tril(product) + tril(product, -1))  # the lower triangle, the diagonal halved
    both = solve_(_transposed(out), halved)
    both = _transposed(solve_(_transposed(out), _transposed(both)))
    return 0.5 * (both + _transposed(both))


cholesky_: Primitive = Primitive(
    "cholesky",
    _linalg(lambda linalg, x: linalg.cholesky(x)),
    gradients=(_cholesky_gradient,),
    promotes_to_float=True,
)
log_abs_det_: Primitive = Primitive(
    "log_abs_det",
    _linalg(lambda linalg, x: linalg.slogdet(x)[1]),
    gradients=(lambda g, out, x: expand_dims(g, (-1, -2)) * _transposed(inv_(x)),),
    promotes_to_float=True,
)
sign_of_det_: Primitive = Primitive(
    "sign_of_det",
    _linalg(lambda linalg, x: linalg.slogdet(x)[0]),
    gradients=(None,),
    promotes_to_float=True,
)


def _square(x: TensorLike, function: str) -> Any:
    x = as_tensor(x)
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise ValueError(f"{function} takes square matrices (..., n, n), got shape {x.shape}")
    return x


def inv(x: Any) -> Tensor:
    """Return the inverse of matrices (..., n, n).

    Raises
    ------
    numpy.linalg.LinAlgError
        A matrix is singular.
    """
    return inv_(_square(x, "inv"))


def solve(a: Any, b: Any) -> Tensor:
    """Return x with a @ x = b for matrices a (..., n, n) and b (..., n, m), or a vector b (n,).

    Raises
    ------
    numpy.linalg.LinAlgError
        A matrix is singular.
    """
    a, b = as_tensors((_square(a, "solve"), b))
    if b.ndim == 0 or b.shape[0 if b.ndim == 1 else -2] != a.shape[-1]:
        raise ValueError(f"solve: a of shape {a.shape} does not fit b of shape {b.shape}")
    return squeeze(solve_(a, expand_dims(b, -1)), -1) if b.ndim == 1 else solve_(a, b)


def cholesky(x: Any) -> Tensor:
    """Return the lower triangular matrices L with L @ L.T = x, for symmetric positive definite x (..., n, n).

    Only the lower triangle of x is read; the gradient is that of a symmetric matrix.

    Raises
    ------
    numpy.linalg.LinAlgError
        A matrix is not positive definite.
    """
    return cholesky_(_square(x, "cholesky"))


def slogdet(x: Any) -> tuple[Tensor, Tensor]:
    """Return the sign and the logarithm of the absolute value of the determinants of matrices (..., n, n)."""
    x = _square(x, "slogdet")
    return sign_of_det_(x), log_abs_det_(x)


def det(x: Any) -> Tensor:
    """Return the determinants of matrices (..., n, n); a gradient needs that none is 0."""
    sign, log_abs = slogdet(x)
    return sign * exp(log_abs)
