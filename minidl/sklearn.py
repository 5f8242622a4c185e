"""Networks as estimators of scikit-learn: `Classifier`, `Regressor` and `Autoencoder`, a transformer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from itertools import pairwise
from typing import Any, Self

import numpy
from sklearn import base
from sklearn.utils import check_array, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from minidl.creation import zeros
from minidl.layers import Dense, Layer, Network, Normalize, ReLU
from minidl.losses import mean_squared_error, softmax_cross_entropy
from minidl.mode import no_grad
from minidl.primitives.elementwise import relu
from minidl.primitives.reduction import softmax
from minidl.random.generator import Generator
from minidl.tensor import Parameter, Tensor
from minidl.training import Trainer


class _Estimator(base.BaseEstimator):  # type: ignore[misc]
    """What the estimators share.

    Parameters
    ----------
    network : None for a Normalize layer and Dense layers with ReLU; a Layer, of which each fit trains a copy;
        or a function ``(in_features, out_features, generator)`` that returns one
    hidden : the features of the layers between, where no network is given
    optimizer : ``"adam"``, ``"sgdm"``, ``"rmsprop"``, or a function from the parameters to an optimizer
    learning_rate : None for that of the optimizer
    epochs, batch_size : as for Trainer.fit()
    validation_fraction : the share of the samples that finds the best network, and does not train it
    patience : stop after this number of epochs in a row without a better validation
    loss : a function of outputs, targets and ``reduction="none"``; None for the usual one
    device, compile, verbose : as for Trainer
    random_state : decides weights and order; an integer for the same result each time

    After fit(), ``network_`` is the trained network, and ``history_`` says what happened.
    """

    def __init__(
        self,
        network: Layer | Callable[[int, int, Generator], Layer] | None = None,
        hidden: Sequence[int] = (100,),
        optimizer: Any = "adam",
        learning_rate: float | None = None,
        epochs: int = 100,
        batch_size: int = 32,
        validation_fraction: float = 0.0,
        patience: float = math.inf,
        loss: Callable[..., Tensor] | None = None,
        device: str = "cpu",
        compile: bool | dict[str, Any] = True,
        verbose: bool = False,
        random_state: Any = None,
    ):
        self.network = network
        self.hidden = hidden
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.batch_size = batch_size
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.loss = loss
        self.device = device
        self.compile = compile
        self.verbose = verbose
        self.random_state = random_state

    def _checked(self, *arrays: Any, **options: Any) -> Any:
        """Return inputs as float32, and targets; only a network of one's own takes images."""
        options["allow_nd"] = self.network is not None
        return validate_data(self, *arrays, dtype=numpy.float32, **options)

    def _default(self, inputs: int, outputs: int, generator: Generator) -> Layer:
        dense = [Dense(a, b, seed=generator) for a, b in pairwise([inputs, *self.hidden, outputs])]
        between = [part for layer in dense[:-1] for part in (layer, ReLU())]
        return Network([Normalize((inputs,)), *between, dense[-1]])

    def _train(self, x: Any, y: Any, weights: Any, outputs: int, usual: Callable[..., Tensor]) -> None:
        random = check_random_state(self.random_state)
        generator, seed = (int(n) for n in random.randint(2**31, size=2))
        if isinstance(self.network, Layer):
            self.network_ = deepcopy(self.network)
        else:
            make = self._default if self.network is None else self.network
            self.network_ = make(x.shape[-1], outputs, Generator(generator))
        weights = _check_sample_weight(weights, x, dtype=numpy.float32)
        weights = weights / (weights.mean() or 1)

        def weighted(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
            each = (self.loss or usual)(prediction, target, reduction="none")
            return (each.reshape(len(weight), -1).mean(1) * weight).mean()

        given = self.optimizer
        optimizer = given(self.network_.parameters()) if callable(given) else given
        trainer = Trainer(
            self.network_, weighted, optimizer, device=self.device, compile=self.compile, seed=seed
        )
        if self.learning_rate is not None:
            trainer.optimizer.learning_rate = self.learning_rate
        order, fraction = random.permutation(len(x)), self.validation_fraction
        kept = math.ceil(len(x) * fraction)
        if kept >= len(x):
            raise ValueError(f"validation_fraction={fraction} leaves none of {len(x)} samples")
        rest, validation = ((x[i], (y[i], weights[i])) for i in (order[kept:], order[:kept]))
        self.history_ = trainer.fit(
            *rest,
            epochs=self.epochs,
            batch_size=min(self.batch_size, len(x) - kept),
            drop_last=False,
            validation_data=validation if kept else None,
            validation_frequency="epoch",
            validation_patience=self.patience,
            verbose=self.verbose,
        )
        self.network_.to("cpu")

    def _outputs(self, x: Any, part: str = "__call__") -> Any:
        """Check inputs, and return what the trained network, or a part of it, makes of them."""
        check_is_fitted(self)
        x = check_array(x, dtype=numpy.float32) if part == "decode" else self._checked(x, reset=False)
        return self._computed(x, part)

    def _computed(self, x: Any, part: str, rows: int = 1024) -> Any:
        """Return what the trained network, or a part of it, makes of an array, some rows at a time."""
        function = getattr(self.network_, part)
        with no_grad(), self.network_.evaluating():
            parts = [function(Tensor(x[i : i + rows])).numpy() for i in range(0, len(x), rows)]
        return numpy.concatenate(parts)


class Classifier(base.ClassifierMixin, _Estimator):  # type: ignore[misc]
    """A network that classifies. Its outputs are logits, one for each class; labels may be of any type.

    Parameters are those of all estimators here; the usual loss is the cross-entropy. Attributes are
    ``network_``, ``history_`` and ``classes_``, the labels in the order of predict_proba()'s columns.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on X (samples, features) and labels y (samples,)."""
        X, y = self._checked(X, y)
        check_classification_targets(y)
        self.classes_, numbers = numpy.unique(y, return_inverse=True)
        self._train(X, numbers, sample_weight, len(self.classes_), softmax_cross_entropy)
        return self

    def predict_proba(self, X: Any) -> Any:
        """Return probabilities (samples, classes)."""
        return softmax(Tensor(self._outputs(X))).numpy()

    def predict(self, X: Any) -> Any:
        """Return labels (samples,)."""
        numbers = self._outputs(X).argmax(-1)
        return self.classes_[numbers]


class Regressor(base.RegressorMixin, _Estimator):  # type: ignore[misc]
    """A network that predicts numbers, trained on targets of mean 0 and standard deviation 1.

    Parameters and attributes are those of all estimators here; the usual loss is the mean squared error.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on X (samples, features) and targets y, (samples,) or (samples, outputs)."""
        X, y = self._checked(X, y, y_numeric=True, multi_output=True)
        self._mean, self._scale = y.mean(0), numpy.where(y.std(0) > 0, y.std(0), 1)
        targets = ((y - self._mean) / self._scale).astype(numpy.float32).reshape(len(y), -1)
        self._shape = y.shape[1:]
        self._train(X, targets, sample_weight, targets.shape[1], mean_squared_error)
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def predict(self, X: Any) -> Any:
        """Return predictions of the shape of the targets."""
        return self._outputs(X).reshape(-1, *self._shape) * self._scale + self._mean


class _Tied(Layer):
    """An autoencoder whose decoder has the encoder's weights, transposed."""

    def __init__(self, sizes: list[int], generator: Generator):
        self.normalize = Normalize((sizes[0],))
        self.dense = [Dense(a, b, seed=generator) for a, b in pairwise(sizes)]
        self.biases = [Parameter(zeros(layer.in_features)) for layer in self.dense]

    def encode(self, x: Tensor) -> Tensor:
        """Compute codes."""
        x = self.dense[0](self.normalize(x))
        for layer in self.dense[1:]:
            x = layer(relu(x))
        return x

    def decode(self, x: Tensor) -> Tensor:
        """Compute inputs from codes."""
        for i, (layer, bias) in enumerate(zip(self.dense[::-1], self.biases[::-1], strict=True)):
            x = (relu(x) if i else x) @ layer.weight.T + bias
        return x / self.normalize.factor + self.normalize.offset

    def forward(self, x: Tensor) -> Tensor:
        """Compute reconstructions."""
        return self.decode(self.encode(x))


class Autoencoder(base.ClassNamePrefixFeaturesOutMixin, base.TransformerMixin, _Estimator):  # type: ignore[misc]
    """A transformer to codes, from which a network reconstructs the inputs.

    Parameters and attributes are those of all estimators here; the last of ``hidden`` is the code, and the
    usual loss is the mean squared error. A network of one's own has ``encode`` and ``decode``.
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def _default(self, inputs: int, outputs: int, generator: Generator) -> Layer:
        return _Tied([inputs, *self.hidden], generator)

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Train on X (samples, features)."""
        x = self._checked(X)
        self._train(x, x, sample_weight, x.shape[-1], mean_squared_error)
        self._n_features_out = self._computed(x[:1], "encode").shape[-1]
        return self

    def transform(self, X: Any) -> Any:
        """Return codes (samples, code)."""
        return self._outputs(X, "encode")

    def inverse_transform(self, X: Any) -> Any:
        """Return what the network reconstructs from codes (samples, code)."""
        return self._outputs(X, "decode")

    def score(self, X: Any, y: Any = None) -> float:
        """Return minus the mean squared error of the reconstructions."""
        return -float(numpy.mean((self._outputs(X) - self._checked(X, reset=False)) ** 2))
