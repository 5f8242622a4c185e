"""The check that data holds no NaN and no infinity: one such value would make all weights NaN."""

from __future__ import annotations

import numpy
from numpy.typing import ArrayLike


def check_finite(array: ArrayLike, name: str) -> None:
    """Return nothing if all values are finite numbers.

    Raises
    ------
    ValueError
        Values are NaN or infinite; the message has ``name``, how many they are and where the first is.
    TypeError
        The array does not hold numbers.
    """
    array = numpy.asarray(array)
    if array.dtype.kind in "biu":  # whole numbers are finite
        return
    if array.dtype.kind not in "fc":
        raise TypeError(f"{name} holds {array.dtype} values; expected numbers")
    finite = numpy.isfinite(array)
    if finite.all():
        return
    wrong = int(array.size - numpy.count_nonzero(finite))
    first = tuple(int(i) for i in numpy.unravel_index(finite.argmin(), finite.shape))
    raise ValueError(
        f"{name} has {wrong} of {array.size} values that are NaN or infinite; "
        f"the first is {array[first]} at index {first}"
    )
