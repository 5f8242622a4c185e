"""MultiHeadAttention."""

from __future__ import annotations

from minidl.layers.dense import Dense
from minidl.layers.dropout import Dropout
from minidl.layers.layer import Layer
from minidl.layers.validation import check_input
from minidl.primitives.attention import attention_weights
from minidl.random.generator import Generator, as_generator
from minidl.tensor import Tensor


class MultiHeadAttention(Layer):
    """Attention in several heads at once (Vaswani et al., 2017).

    Queries, keys and values are projected, cut into heads, which attend each by itself, and joined and
    projected again. ``layer(x)`` is self-attention; ``layer(x, memory)`` is cross-attention, in which x asks
    and the memory answers. A query that may attend to nothing gets 0 from its heads.

    Parameters
    ----------
    features : the length of the last axis of all inputs and of the output; a multiple of ``heads``
    heads : the number of heads
    causal : no query attends to a later key; the last query stands at the time of the last key
    dropout : the probability with which a weight of the attention is dropped in training
    bias : whether the projections have biases
    seed : an integer, a Generator or None

    Attributes
    ----------
    query, key, value, output : the projections, Dense(features, features)
    dropout : Dropout
    """

    def __init__(
        self,
        features: int,
        heads: int,
        causal: bool = False,
        dropout: float = 0.0,
        bias: bool = True,
        seed: int | Generator | None = None,
    ):
        if features < 1 or heads < 1 or features % heads:
            raise ValueError(f"MultiHeadAttention: {features} features cannot be cut into {heads} heads")
        generator = as_generator(seed)
        self.features = features
        self.heads = heads
        self.causal = causal
        self.query, self.key, self.value, self.output = (
            Dense(features, features, bias=bias, seed=generator) for _ in range(4)
        )
        self.dropout = Dropout(dropout, seed=generator)

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Compute (batch, query_time, features).

        Parameters
        ----------
        query : (batch, query_time, features)
        key, value : (batch, time, features); by default, keys are the queries and values are the keys
        mask : bools, True where a key may be attended to: (batch, time), which leaves out padding, or
            (batch, query_time, time)
        """
        key = query if key is None else key
        value = key if value is None else value
        for x in (query, key, value):
            check_input(self, x, ("batch", "time", self.features), like=self.query.weight)
        q, k, v = self._cut(self.query(query)), self._cut(self.key(key)), self._cut(self.value(value))
        weights = attention_weights(q, k, self._for_heads(mask, query, key), self.causal)
        result: Tensor = self.output(self._join(self.dropout(weights) @ v))
        return result

    def _cut(self, x: Tensor) -> Tensor:
        """Return (batch, heads, time, features / heads)."""
        batch, time, features = x.shape
        return x.reshape(batch, time, self.heads, features // self.heads).transpose(0, 2, 1, 3)

    def _join(self, x: Tensor) -> Tensor:
        """Return (batch, time, features)."""
        batch, _, time, _ = x.shape
        return x.transpose(0, 2, 1, 3).reshape(batch, time, self.features)

    def _for_heads(self, mask: Tensor | None, query: Tensor, key: Tensor) -> Tensor | None:
        """Return a mask that broadcasts to (batch, heads, query_time, time)."""
        if mask is None:
            return None
        batch, time = key.shape[:2]
        if mask.shape == (batch, time):
            return mask.reshape(batch, 1, 1, time)
        if mask.shape == (batch, query.shape[1], time):
            return mask.reshape(batch, 1, query.shape[1], time)
        raise ValueError(
            f"MultiHeadAttention({self.extra_repr()}) takes a mask ({batch}, {time}) "
            f"or ({batch}, {query.shape[1]}, {time}); got {mask.shape}"
        )

    def extra_repr(self) -> str:
        """Return the sizes, and that it is causal if so."""
        return f"{self.features}, {self.heads}" + (", causal=True" if self.causal else "")
