"""Random keys of indexing."""

from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minidl.primitives.indexing import SLOT

KINDS = ("int64", "int32", "int8", "uint8")


@st.composite
def selections(draw, most_arrays=3, empty=True, outside=False):
    """Draw (shape, key, positions): what can stand in x[...], with slots for the arrays of positions."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4))
    kinds = draw(st.lists(st.sampled_from("asi"), min_size=len(shape), max_size=len(shape)))
    kinds = [kind if kinds[:i].count("a") < most_arrays else "s" for i, kind in enumerate(kinds)]
    count = kinds.count("a")
    spread: list = []
    if count:
        drawn = hnp.mutually_broadcastable_shapes(
            num_shapes=count, max_dims=2, min_side=0 if empty else 1, max_side=3
        )
        spread = list(draw(drawn).input_shapes)
    key, positions = [], []
    for kind, length in zip(kinds, shape, strict=True):
        if kind == "a":
            dtype = draw(st.sampled_from(KINDS))
            least = 0 if dtype == "uint8" else -length
            bounds = st.integers(
                *((0 if dtype == "uint8" else -100), 100) if outside else (least, length - 1)
            )
            positions.append(draw(hnp.arrays(dtype, spread.pop(0), elements=bounds)))
            key.append(SLOT)
        else:
            key.append(draw(st.slices(length) if kind == "s" else st.integers(-length, length - 1)))
    if draw(st.booleans()):  # an ellipsis in place of some axes, or of none
        start = draw(st.integers(0, len(key)))
        end = start
        while end < len(key) and isinstance(key[end], slice) and draw(st.booleans()):
            end += 1
        key[start:end] = [Ellipsis]
    for _ in range(draw(st.integers(0, 2))):
        key.insert(draw(st.integers(0, len(key))), None)
    return shape, tuple(key), positions


def filled(key, positions):
    remaining = iter(positions)
    return tuple(next(remaining) if part is SLOT else part for part in key)
