"""Dropout."""

from __future__ import annotations

from minidl.distributed.share import batch_draw
from minidl.layers.layer import Layer
from minidl.layers.validation import check_input
from minidl.primitives.random import random_uniform
from minidl.random.generator import Generator, as_generator
from minidl.tensor import Tensor


class Dropout(Layer):
    """Set a random part of the inputs to 0 while training, and scale up the rest.

    In evaluation mode the input passes unchanged (Srivastava et al., 2014; "inverted" scaling). Where several
    processes share a mini-batch, along the first axis, an observation's mask does not depend on which of them
    computes it.

    Parameters
    ----------
    rate : the probability with which an element is dropped, 0 <= rate < 1
    seed : an integer, a Generator or None
    """

    def __init__(self, rate: float = 0.5, seed: int | Generator | None = None):
        if not 0 <= rate < 1:
            raise ValueError(f"Dropout: rate must be at least 0 and below 1, got {rate}")
        self.rate = rate
        self.generator = as_generator(seed)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the output, in the shape of x."""
        if not self.training or self.rate == 0:
            return x
        check_input(self, x, (...,), kinds="f")
        kept = batch_draw(random_uniform, x, self.generator) >= self.rate
        return x * kept * (1 / (1 - self.rate))

    def extra_repr(self) -> str:
        """Return the rate."""
        return str(self.rate)
