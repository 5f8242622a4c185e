"""Einstein summation: products of any number of Tensors, summed over the axes that the result does not name.

Operands are combined from left to right, two at a time: axes that both have and the result does not need are
summed by a matrix product, axes that both have and are still needed become its leading axes.
"""

from __future__ import annotations

import math
import string
from typing import Any

from minidl.primitives.elementwise import multiply
from minidl.primitives.indexing import diagonal
from minidl.primitives.linear_algebra import matmul_
from minidl.primitives.shape import reshape, squeeze, transpose
from minidl.tensor import Tensor, as_tensors

#: What stands for the axes of "..." inside; no name that a user can write.
_UNNAMED = "0123456789"
#: What stands for numbers of axes, in their order.
_LETTERS = dict(enumerate(string.ascii_uppercase + string.ascii_lowercase))


def einsum(subscripts: Any, *operands: Any) -> Tensor:
    """Return the sum of products that the subscripts describe, as numpy.einsum does.

    Parameters
    ----------
    subscripts : a letter for each axis of each operand, such as ``"bij,bjk->bik"``; ``...`` stands for axes
        without a letter. Without ``->`` the result has the letters that occur once, in alphabetical order.
        Or numbers in place of letters: ``einsum(x, [0, 1, 2], y, [0, 2, 3], [0, 1, 3])``.

    Raises
    ------
    ValueError
        The subscripts do not fit the operands.
    """
    if not isinstance(subscripts, str):
        subscripts, operands = _lettered((subscripts, *operands))
    tensors = as_tensors(operands)
    labels, result = _parsed(subscripts, tensors)
    sizes: dict[str, int] = {}
    for names, x in zip(labels, tensors, strict=True):
        for name, length in zip(names, x.shape, strict=True):
            if sizes.setdefault(name, length) != length:
                if 1 not in (length, sizes[name]):
                    raise ValueError(
                        f"einsum: axes {name!r} of {subscripts!r} have the lengths {sizes[name]} and {length}"
                    )
                sizes[name] = max(length, sizes[name])
    for name in result:
        if name not in sizes:
            raise ValueError(f"einsum: the result of {subscripts!r} names {name!r}, which no operand has")
    terms = [_single(x, names) for x, names in zip(tensors, labels, strict=True)]
    while len(terms) > 1:
        needed = set(result).union(*(names for _, names in terms[2:]))
        terms[:2] = [_pair(terms[0], terms[1], needed)]
    x, names = _summed(*terms[0], set(result))
    for name in result:
        if x.shape[names.index(name)] != sizes[name]:
            raise ValueError(f"einsum: axis {name!r} of {subscripts!r} is broadcast in the result alone")
    return transpose(x, [names.index(name) for name in result])


def _lettered(arguments: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
    """Return subscripts and operands, given as operands that are each followed by the numbers of its axes."""
    operands, lists = arguments[0:-1:2], [*arguments[1::2], *arguments[len(arguments) // 2 * 2 :]]
    try:
        parts = ["".join("..." if n is Ellipsis else _LETTERS[n] for n in part) for part in lists]
    except (TypeError, KeyError):
        raise TypeError(
            "einsum takes subscripts, such as 'ij,jk', before the operands, or after each operand a list of "
            "numbers below 52"
        ) from None
    given, result = parts[: len(operands)], parts[len(operands) :]
    return ",".join(given) + "".join(f"->{part}" for part in result), operands


def _parsed(subscripts: str, tensors: tuple[Any, ...]) -> tuple[list[str], str]:
    """Return the names of the axes of each operand and of the result, without "..."."""
    given, arrow, result = subscripts.replace(" ", "").partition("->")
    parts = given.split(",")
    if len(parts) != len(tensors):
        raise ValueError(f"einsum: {subscripts!r} describes {len(parts)} operands, got {len(tensors)}")
    unnamed = [x.ndim - len(part.replace("...", "")) for part, x in zip(parts, tensors, strict=True)]
    for part, x, count in zip(parts, tensors, unnamed, strict=True):
        if count < 0 or (count > 0 and "..." not in part):
            raise ValueError(f"einsum: {part!r} does not describe the axes of shape {x.shape}")
    most = max((count for part, count in zip(parts, unnamed, strict=True) if "..." in part), default=0)
    if not arrow:
        letters = sorted(set(given) - set("., "))
        result = "..." * ("..." in given) + "".join(name for name in letters if given.count(name) == 1)
    labels = [
        part.replace("...", _UNNAMED[most - count : most]) for part, count in zip(parts, unnamed, strict=True)
    ]
    result = result.replace("...", _UNNAMED[:most])
    names = set("".join(labels) + result) - set(_UNNAMED)
    if not all(name.isalpha() for name in names) or len(set(result)) < len(result):
        raise ValueError(f"einsum: {subscripts!r} is not made of letters, ',', '...' and '->'")
    return labels, result


def _single(x: Any, names: str) -> tuple[Any, str]:
    """Return an operand with the diagonal taken where a name stands twice."""
    for name in dict.fromkeys(names):
        while names.count(name) > 1:
            first = names.index(name)
            second = names.index(name, first + 1)
            if x.shape[first] != x.shape[second]:
                raise ValueError(f"einsum: axes {name!r} of shape {x.shape} differ in length")
            x = diagonal(x, 0, first, second)
            names = names[:first] + names[first + 1 : second] + names[second + 1 :] + name
    return x, names


def _summed(x: Any, names: str, needed: set[str]) -> tuple[Any, str]:
    """Sum an operand over the axes that nothing else needs."""
    axes = tuple(i for i, name in enumerate(names) if name not in needed)
    return (x.sum(axis=axes), "".join(name for name in names if name in needed)) if axes else (x, names)


def _pair(left: tuple[Any, str], right: tuple[Any, str], needed: set[str]) -> tuple[Any, str]:
    """Combine two operands, and sum over what they share and nothing else needs."""
    a, names_a = _summed(*left, needed | set(right[1]))
    b, names_b = _summed(*right, needed | set(left[1]))
    both = [name for name in names_a if name in names_b]
    # An axis of length 1 beside a longer one is summed at once, so that the other axis stands alone.
    a, names_a = _without_short(a, names_a, b, names_b, both)
    b, names_b = _without_short(b, names_b, a, names_a, both)
    both = [name for name in names_a if name in names_b]
    summed = [name for name in both if name not in needed]
    leading = [name for name in both if name in needed]
    only_a = [name for name in names_a if name not in both]
    only_b = [name for name in names_b if name not in both]
    a = transpose(a, [names_a.index(name) for name in (*leading, *only_a, *summed)])
    b = transpose(b, [names_b.index(name) for name in (*leading, *summed, *only_b)])
    front = a.shape[: len(leading)]
    shape_a, shape_b = a.shape[len(leading) : a.ndim - len(summed)], b.shape[len(leading) + len(summed) :]
    names = "".join([*leading, *only_a, *only_b])
    if not summed:
        a = reshape(a, (*front, *shape_a, *(1,) * len(shape_b)))
        return multiply(a, reshape(b, (*front, *(1,) * len(shape_a), *shape_b))), names
    length = math.prod(a.shape[a.ndim - len(summed) :])
    a = reshape(a, (*front, math.prod(shape_a), length))
    b = reshape(b, (*front, length, math.prod(shape_b)))
    return reshape(matmul_(a, b), (*front, *shape_a, *shape_b)), names


def _without_short(x: Any, names: str, other: Any, others: str, both: list[str]) -> tuple[Any, str]:
    """Drop axes of length 1 where the other operand has a longer axis of the same name."""
    short = [
        i
        for i, name in enumerate(names)
        if name in both and name in others and x.shape[i] == 1 and other.shape[others.index(name)] > 1
    ]
    kept = "".join(name for i, name in enumerate(names) if i not in short)
    return (squeeze(x, tuple(short)), kept) if short else (x, names)
