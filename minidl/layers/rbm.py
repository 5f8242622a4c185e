"""RBM: a restricted Boltzmann machine, which learns by contrastive divergence, without a backward pass."""

from __future__ import annotations

from operator import index

from minidl.initializers import Initializer, initial_parameter
from minidl.layers.layer import Layer
from minidl.layers.validation import check_input
from minidl.mode import no_grad
from minidl.primitives.elementwise import sigmoid, softplus
from minidl.random.drawing import bernoulli, normal
from minidl.random.generator import Generator, as_generator
from minidl.tensor import Tensor

#: What units can be: 0 or 1, or numbers with normal noise of variance 1.
KINDS = ("bernoulli", "gaussian")


class RBM(Layer):
    """A restricted Boltzmann machine: visible and hidden units, with weights between the two kinds alone.

    The probability of a pair (v, h) is proportional to ``exp(-E)`` with, for Bernoulli units,
    ``E(v, h) = -v @ visible_bias - h @ hidden_bias - v @ weight @ h``. For Gaussian units, which have
    variance 1, ``-v @ visible_bias`` becomes ``|v - visible_bias|^2 / 2``, and likewise for h.

    As a Layer it computes the means of the hidden units, so a trained one can be a part of a Network.

    Parameters
    ----------
    visible_features, hidden_features : how many units there are of each kind
    visible, hidden : what they are, ``"bernoulli"`` or ``"gaussian"``
    weight_initializer : a name from `minidl.initializers` or a function ``(shape, numpy_generator) -> array``
    seed : an integer, a Generator or None; decides the weights and what is drawn

    Attributes
    ----------
    weight : Parameter (visible_features, hidden_features)
    visible_bias, hidden_bias : Parameters, 0 at first, without L2 regularisation

    Examples
    --------
    >>> import minidl as dl
    >>> rbm = dl.RBM(6, 2, seed=0)
    >>> optimizer = dl.SGD(rbm.parameters(), learning_rate=0.1, momentum=0.5, l2=2e-4)
    >>> @dl.compile
    ... def step(v):
    ...     error = rbm.contrastive_divergence(v)  # takes the place of loss and backward()
    ...     optimizer.step()
    ...     return error
    >>> v = dl.tensor([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]], dtype="float32")
    >>> errors = [step(v).item() for _ in range(500)]
    >>> errors[-1] < 0.2 * errors[0]
    True

    References
    ----------
    Hinton (2002), Training products of experts by minimizing contrastive divergence; Hinton &
    Salakhutdinov (2006), Reducing the dimensionality of data with neural networks; Welling, Rosen-Zvi &
    Hinton (2005) for Gaussian units.
    """

    def __init__(
        self,
        visible_features: int,
        hidden_features: int,
        visible: str = "bernoulli",
        hidden: str = "bernoulli",
        weight_initializer: str | Initializer = "narrow_normal",
        seed: int | Generator | None = None,
    ):
        if visible_features < 1 or hidden_features < 1:
            raise ValueError(
                f"RBM needs at least one unit of each kind, got {visible_features}, {hidden_features}"
            )
        for name, kind in (("visible", visible), ("hidden", hidden)):
            if kind not in KINDS:
                raise ValueError(f"RBM: {name} must be one of {', '.join(KINDS)}; got {kind!r}")
        self.visible_features = visible_features
        self.hidden_features = hidden_features
        self.visible = visible
        self.hidden = hidden
        self.generator = as_generator(seed)
        self.weight = initial_parameter(
            weight_initializer, (visible_features, hidden_features), self.generator
        )
        self.visible_bias = initial_parameter("zeros", (visible_features,), self.generator)
        self.hidden_bias = initial_parameter("zeros", (hidden_features,), self.generator)

    def forward(self, v: Tensor) -> Tensor:
        """Compute the means of the hidden units (batch, hidden_features) given the visible ones."""
        check_input(self, v, ("batch", self.visible_features), like=self.weight)
        return _mean(self.hidden, v @ self.weight + self.hidden_bias)

    def reconstruct(self, h: Tensor) -> Tensor:
        """Compute the means of the visible units (batch, visible_features) given the hidden ones."""
        return _mean(self.visible, h @ self.weight.T + self.visible_bias)

    def sample_hidden(self, v: Tensor) -> Tensor:
        """Draw the hidden units given the visible ones."""
        return self._draw(self.hidden, self(v))

    def sample_visible(self, h: Tensor) -> Tensor:
        """Draw the visible units given the hidden ones."""
        return self._draw(self.visible, self.reconstruct(h))

    def free_energy(self, v: Tensor) -> Tensor:
        """Compute ``-log sum_h exp(-E(v, h))`` for each row of v, as (batch,).

        For Gaussian hidden units the sum is an integral, and ``log(2 pi) / 2`` for each unit is left out.
        """
        check_input(self, v, ("batch", self.visible_features), like=self.weight)
        field = v @ self.weight
        if self.visible == "bernoulli":
            energy = -(v @ self.visible_bias)
        else:
            energy = 0.5 * ((v - self.visible_bias) ** 2).sum(axis=1)
        if self.hidden == "bernoulli":
            hidden = softplus(field + self.hidden_bias)
        else:  # the integral of exp(-(h - c)^2 / 2 + field * h)
            hidden = field * (0.5 * field + self.hidden_bias)
        result: Tensor = energy - hidden.sum(axis=1)
        return result

    @no_grad()
    def contrastive_divergence(self, v: Tensor, steps: int = 1, sample_visible: bool = False) -> Tensor:
        """Set the gradients of the Parameters to CD-k's, in place of a loss and its backward().

        CD-k follows how ``v^T h`` and the units differ between the data and what k steps of Gibbs sampling
        make of them. As in Hinton & Salakhutdinov (2006), hidden units are drawn, but the statistics are
        of their means.

        Parameters
        ----------
        v : Tensor (batch, visible_features), for Bernoulli units 0 to 1
        steps : the k of CD-k
        sample_visible : draw the visible units as well, instead of using their means. With many steps the
            gradient becomes that of the log-likelihood; means have less noise

        Returns
        -------
        The squared error of the reconstruction after the first step, summed over units, and averaged over
        the batch. It is not what is minimised, but it shows whether the machine learns.
        """
        if index(steps) < 1:
            raise ValueError(f"RBM: contrastive divergence takes at least 1 step, got {steps}")
        first = h = self(v)
        model = v
        for step in range(index(steps)):
            drawn = self._draw(self.hidden, h)
            model = self.sample_visible(drawn) if sample_visible else self.reconstruct(drawn)
            h = self(model)
            if step == 0:
                error: Tensor = ((v - model) ** 2).sum() / len(v)
        self.weight.grad = (model.T @ h - v.T @ first) / len(v)
        self.visible_bias.grad = (model - v).mean(axis=0)
        self.hidden_bias.grad = (h - first).mean(axis=0)
        return error

    def _draw(self, kind: str, mean: Tensor) -> Tensor:
        if kind == "bernoulli":
            return bernoulli(mean, generator=self.generator).astype(mean.dtype)
        noise = normal(mean.shape, dtype=mean.dtype, device=mean.device, generator=self.generator)
        return mean + noise

    def extra_repr(self) -> str:
        """Return the sizes, and the kinds of units that are not Bernoulli's."""
        kinds = "".join(
            f", {name}={kind!r}"
            for name, kind in (("visible", self.visible), ("hidden", self.hidden))
            if kind != "bernoulli"
        )
        return f"{self.visible_features}, {self.hidden_features}{kinds}"


def _mean(kind: str, field: Tensor) -> Tensor:
    return sigmoid(field) if kind == "bernoulli" else field
