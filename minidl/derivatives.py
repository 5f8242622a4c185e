"""Derivatives of functions: from a function of Tensors to the function that computes its gradient, and more.

Each takes ``position``, the place of the argument by which is differentiated. What they return can be
differentiated again, and compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minidl.autodiff import grad
from minidl.creation import zeros
from minidl.mode import enable_grad
from minidl.primitives.shape import broadcast_to, reshape, reshape_, stack
from minidl.tensor import Tensor, as_tensor, as_tensors


def value_and_grad(
    function: Callable[..., Tensor], position: int = 0
) -> Callable[..., tuple[Tensor, Tensor]]:
    """Return the function that gives the result of ``function``, which is one element, and its gradient."""

    @enable_grad()  # a derivative needs a tape, inside no_grad() too
    def compute(*arguments: Any, **options: Any) -> tuple[Tensor, Tensor]:
        x, y = _applied(function, position, arguments, options)
        return y, grad(y, x, create_graph=True)

    return compute


def jacobian(function: Callable[..., Tensor], position: int = 0) -> Callable[..., Tensor]:
    """Return the function that gives the derivatives of each element of the result by each of the argument.

    They have the shape of the result followed by that of the argument. One backward pass is made for each
    element of the result.
    """

    @enable_grad()  # a derivative needs a tape, inside no_grad() too
    def compute(*arguments: Any, **options: Any) -> Tensor:
        x, y = _applied(function, position, arguments, options)
        elements = reshape(y, (-1,))
        if not y.requires_grad or y.size == 0:
            return zeros(y.shape + x.shape, x.dtype, x.device)
        rows = [grad(elements[i], x, create_graph=True, retain_graph=True) for i in range(y.size)]
        return reshape(stack(rows), y.shape + x.shape)

    return compute


def hessian(function: Callable[..., Tensor], position: int = 0) -> Callable[..., Tensor]:
    """Return the function that gives the second derivatives of a result of one element by the argument.

    They have the shape of the argument twice.
    """

    def gradient(*arguments: Any, **options: Any) -> Tensor:
        return value_and_grad(function, position)(*arguments, **options)[1]

    return jacobian(gradient, position)


def hessian_vector_product(function: Callable[..., Tensor], position: int = 0) -> Callable[..., Tensor]:
    """Return the function of a vector and the arguments that gives the Hessian times the vector.

    It takes two backward passes, whatever the size of the argument (Pearlmutter, 1994).
    """

    @enable_grad()  # a derivative needs a tape, inside no_grad() too
    def compute(vector: Any, *arguments: Any, **options: Any) -> Tensor:
        x, y = _applied(function, position, arguments, options)
        gradient = grad(y, x, create_graph=True)
        if not gradient.requires_grad:
            return x.zeros_like()
        _, vector = as_tensors((gradient, vector))
        vector = broadcast_to(vector.astype(x.dtype), x.shape)
        product: Tensor = grad(gradient, x, vector, create_graph=True)
        return product

    return compute


def _applied(
    function: Callable[..., Tensor], position: int, arguments: tuple[Any, ...], options: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """Return the argument as a Tensor that requires a gradient, and the result of the function.

    It is a Tensor of its own: where the function sees the same one in another place, as another argument or
    from outside, that is a constant.
    """
    x = as_tensor(arguments[position])
    if x.requires_grad:
        x = reshape_(x, shape=x.shape)
    else:
        x = x.detach()
        x._requires_grad = True
    return x, function(*arguments[:position], x, *arguments[position + 1 :], **options)
