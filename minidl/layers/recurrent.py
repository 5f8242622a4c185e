"""Recurrent layers: a state goes from step to step of a sequence (batch, time, features).

The product of all inputs with their weights is one large product before the loop; the loop is the formula.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy

from minidl.creation import zeros
from minidl.initializers import Initializer, initial_parameter
from minidl.layers.layer import Layer
from minidl.layers.sizes import may_be_open
from minidl.layers.validation import check_input
from minidl.primitives.elementwise import sigmoid, tanh, where
from minidl.primitives.shape import stack
from minidl.random.generator import Generator, as_generator
from minidl.tensor import Parameter, Tensor


class _Recurrent(Layer):
    """What all recurrent layers share; a subclass says how one step goes.

    Parameters
    ----------
    in_features, hidden_features : lengths of the last axis of input and output; ``in_features`` may be None
        until ``initialize(sample)``
    return_sequences : whether the output holds all steps, or the last one alone
    return_state : whether the final state is returned, too: ``(y, h)``, and of an LSTM ``(y, h, c)``
    stateful : whether each call begins with the state in which the last one ended; set it to 0, for a
        number of sequences, with reset_state()
    weight_initializer, recurrent_initializer, bias_initializer : a name from `minidl.initializers` or a
        function ``(shape, numpy_generator) -> array``
    seed : an integer, a Generator (which several layers may share) or None

    Attributes
    ----------
    input_weight : Parameter (in_features, gates * hidden_features)
    recurrent_weight : Parameter (hidden_features, gates * hidden_features)
    bias : Parameter (gates * hidden_features,), without L2 regularisation
    carried : the state Tensors (batch, hidden_features) of a stateful layer, by name
    """

    gates: ClassVar[int] = 1
    states: ClassVar[tuple[str, ...]] = ("h",)

    @may_be_open("in_features")
    def __init__(
        self,
        in_features: int | None,
        hidden_features: int,
        return_sequences: bool = False,
        return_state: bool = False,
        stateful: bool = False,
        weight_initializer: str | Initializer = "glorot_uniform",
        recurrent_initializer: str | Initializer = "orthogonal",
        bias_initializer: str | Initializer | None = None,
        seed: int | Generator | None = None,
    ):
        assert in_features is not None  # see may_be_open
        if in_features < 1 or hidden_features < 1:
            raise ValueError(
                f"{type(self).__name__} needs at least one feature on each side, "
                f"got {in_features}, {hidden_features}"
            )
        generator = as_generator(seed)
        columns = self.gates * hidden_features
        self.in_features = in_features
        self.hidden_features = hidden_features
        self.return_sequences = return_sequences
        self.return_state = return_state
        self.stateful = stateful
        self.carried: dict[str, Tensor] = {}
        self.input_weight = initial_parameter(weight_initializer, (in_features, columns), generator)
        self.recurrent_weight = initial_parameter(
            recurrent_initializer, (hidden_features, columns), generator
        )
        self.bias = initial_parameter(bias_initializer or self.initial_bias, (columns,), generator)
        self.add_parameters()

    def add_parameters(self) -> None:
        """Make the Parameters that only this kind of layer has."""

    @staticmethod
    def initial_bias(shape: tuple[int, ...], generator: Any) -> Any:
        """Return the initial bias, where no other initializer is asked for: 0."""
        return numpy.zeros(shape)

    def step(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Compute the next state from ``x @ input_weight + bias`` of one step, and the state."""
        raise NotImplementedError

    def reset_state(self, batch: int) -> None:
        """Set the state of a stateful layer to 0, for a number of sequences.

        Where it is for as many already, its Tensors stay, and so do compiled functions that use them.
        """
        like = self.bias
        shape = (batch, self.hidden_features)
        if self.carried and all(
            part.shape == shape and part.dtype == like.dtype and part.device == like.device
            for part in self.carried.values()
        ):
            for part in self.carried.values():
                part.assign(part.zeros_like())
            return
        self.carried = {name: zeros(shape, like.dtype, like.device) for name in self.states}

    def run(self, x: Tensor, initial: list[Tensor | None], mask: Tensor | None) -> Any:
        """Compute what forward() returns."""
        check_input(self, x, ("batch", "time", self.in_features), like=self.bias)
        if mask is not None:
            check_input(self, mask, x.shape[:2], kinds="b")
        state = self._initial_state(x, initial)
        outputs = []
        for t, projected in enumerate(_steps(x @ self.input_weight + self.bias)):
            after = self.step(projected, *state)
            if mask is None:
                state = after
                outputs.append(state[0])
                continue
            valid = mask[:, t : t + 1]
            state = tuple(where(valid, new, old) for new, old in zip(after, state, strict=True))
            outputs.append(where(valid, state[0], 0.0))
        if self.stateful:
            for name, value in zip(self.states, state, strict=True):
                self.carried[name].assign(value.detach())
        y = stack(outputs, axis=1) if self.return_sequences else state[0]
        return (y, *state) if self.return_state else y

    def _initial_state(self, x: Tensor, initial: list[Tensor | None]) -> tuple[Tensor, ...]:
        shape = (x.shape[0], self.hidden_features)
        if x.shape[1] == 0:
            raise ValueError(f"{self!r} takes at least one step; got {x.shape}")
        if self.stateful and all(part is None for part in initial):
            if any(part.shape != shape for part in self.carried.values()) or not self.carried:
                raise ValueError(
                    f"{self!r} has no state for {x.shape[0]} sequences: call reset_state({x.shape[0]}) first"
                )
            return tuple(part.copy() for part in self.carried.values())
        for part in initial:
            if part is not None:
                check_input(self, part, shape, like=self.bias)
        return tuple(zeros(shape, x.dtype, x.device) if part is None else part for part in initial)

    def extra_repr(self) -> str:
        """Return the sizes, and what is not the default."""
        switches = ("return_sequences", "return_state", "stateful")
        text = "".join(f", {name}=True" for name in switches if getattr(self, name))
        return f"{self.in_features}, {self.hidden_features}{text}"

    def _part(self, gates: Tensor, number: int) -> Tensor:
        return gates[:, number * self.hidden_features : (number + 1) * self.hidden_features]


def _steps(x: Tensor) -> list[Tensor]:
    """Return the steps of x (batch, time, features), cut into halves again and again.

    The gradient of a slice is as large as what it was cut from, so steps cut one by one from the whole would
    take a time that grows with the square of their number.
    """
    steps = x.shape[1]
    return [x[:, 0]] if steps == 1 else [*_steps(x[:, : steps // 2]), *_steps(x[:, steps // 2 :])]


class RNN(_Recurrent):
    """The simple recurrent layer: ``h = tanh(x @ input_weight + h @ recurrent_weight + bias)``."""

    def forward(self, x: Tensor, h: Tensor | None = None, mask: Tensor | None = None) -> Any:
        """Compute (batch, hidden_features) from (batch, time, in_features), or all steps: (batch, time, ...).

        Parameters
        ----------
        h : the initial state (batch, hidden_features); 0 by default
        mask : bools (batch, time), False where a sequence has ended or not begun: such a step leaves
            the state as it is, and its output is 0
        """
        return self.run(x, [h], mask)

    def step(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Compute the next h."""
        (h,) = state
        return (tanh(x + h @ self.recurrent_weight),)


class LSTM(_Recurrent):
    """Long short-term memory (Hochreiter & Schmidhuber, 1997; with the forget gate of Gers et al., 2000).

    With the gates' columns in the order i, f, g, o (as PyTorch, Keras and MATLAB have them)::

        i, f, g, o = x @ input_weight + h @ recurrent_weight + bias
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(c)

    The forget gate's bias is 1 to begin with (as in Keras and MATLAB), so that memories last.
    """

    gates = 4
    states = ("h", "c")

    @staticmethod
    def initial_bias(shape: tuple[int, ...], generator: Any) -> Any:
        """Return the initial bias: 1 for the forget gate, else 0."""
        return numpy.repeat([0.0, 1.0, 0.0, 0.0], shape[0] // 4)

    def forward(
        self, x: Tensor, h: Tensor | None = None, c: Tensor | None = None, mask: Tensor | None = None
    ) -> Any:
        """Compute (batch, hidden_features) from (batch, time, in_features), or all steps: (batch, time, ...).

        Parameters
        ----------
        h, c : the initial state, each (batch, hidden_features); 0 by default
        mask : bools (batch, time), False where a sequence has ended or not begun: such a step leaves
            the state as it is, and its output is 0
        """
        return self.run(x, [h, c], mask)

    def step(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Compute the next h and c."""
        h, c = state
        gates = x + h @ self.recurrent_weight
        i, f, g, o = (self._part(gates, number) for number in range(4))
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        return sigmoid(o) * tanh(c), c


class GRU(_Recurrent):
    """The gated recurrent unit (Cho et al., 2014), with the reset gate behind the product, as PyTorch has it.

    With the gates' columns in the order r, z, n::

        r = sigmoid(x_r + h_r)        where  x_r, x_z, x_n = x @ input_weight + bias
        z = sigmoid(x_z + h_z)        and    h_r, h_z, h_n = h @ recurrent_weight
        n = tanh(x_n + r * (h_n + recurrent_bias))
        h = (1 - z) * n + z * h

    Attributes
    ----------
    recurrent_bias : Parameter (hidden_features,)
    """

    gates = 3

    def add_parameters(self) -> None:
        """Make the bias inside the reset gate."""
        self.recurrent_bias = Parameter(zeros(self.hidden_features))

    def forward(self, x: Tensor, h: Tensor | None = None, mask: Tensor | None = None) -> Any:
        """Compute (batch, hidden_features) from (batch, time, in_features), or all steps: (batch, time, ...).

        Parameters
        ----------
        h : the initial state (batch, hidden_features); 0 by default
        mask : bools (batch, time), False where a sequence has ended or not begun: such a step leaves
            the state as it is, and its output is 0
        """
        return self.run(x, [h], mask)

    def step(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Compute the next h."""
        (h,) = state
        product = h @ self.recurrent_weight
        (x_r, h_r), (x_z, h_z), (x_n, h_n) = (
            (self._part(x, number), self._part(product, number)) for number in range(3)
        )
        r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
        n = tanh(x_n + r * (h_n + self.recurrent_bias))
        return (n + z * (h - n),)
