"""Attention: each query takes the mean of the values, weighted by how well their keys fit it."""

from __future__ import annotations

import math
from typing import Any

import numpy

from minidl.primitives.elementwise import where
from minidl.primitives.reduction import softmax
from minidl.primitives.shape import swapaxes
from minidl.tensor import Tensor, as_tensors, tensor


def attention(query: Any, key: Any, value: Any, mask: Any = None, causal: bool = False) -> Tensor:
    """Return softmax(query @ key^T / sqrt(features)) @ value (Vaswani et al., 2017).

    Parameters
    ----------
    query : (batch, heads, query_time, features); as for matmul, there may be other leading axes
    key : (batch, heads, time, features)
    value : (batch, heads, time, value_features)
    mask : bools that broadcast to (batch, heads, query_time, time): which keys each query may attend to
    causal : no query attends to a later key; the last query stands at the time of the last key

    Returns
    -------
    (batch, heads, query_time, value_features). A query that may attend to nothing gets 0, and its gradients
    are 0, too.

    Raises
    ------
    ValueError
        The shapes do not fit each other.
    TypeError
        The mask is not bool.
    """
    query, key, value = as_tensors((query, key, value))
    result: Tensor = attention_weights(query, key, mask, causal) @ value
    return result


def attention_weights(query: Any, key: Any, mask: Any = None, causal: bool = False) -> Tensor:
    """Return how much each query attends to each key, (..., query_time, time); see attention()."""
    scores = query @ swapaxes(key, -1, -2) * (1 / math.sqrt(query.shape[-1]))
    allowed = _allowed(scores, mask, causal)
    if allowed is None:
        result: Tensor = softmax(scores)
        return result
    # With the lowest number in place of -infinity, a row without any key is no NaN, and then made 0.
    lowest = float(numpy.finfo(scores.dtype).min)
    return where(allowed, softmax(where(allowed, scores, lowest)), 0.0)


def _allowed(scores: Any, mask: Any, causal: bool) -> Any:
    """Return the bool Tensor of the pairs that attend to each other, or None for all."""
    if mask is not None:
        (mask,) = as_tensors((mask,))
        if mask.dtype.kind != "b":
            raise TypeError(f"attention: a mask is bool (True: may be attended to), got {mask.dtype}")
    if not causal:
        return mask
    queries, keys = scores.shape[-2:]
    earlier = numpy.tri(queries, keys, keys - queries, dtype=bool)
    lower = tensor(earlier, device=scores.device)
    return lower if mask is None else where(mask, lower, False)
