"""Networks as estimators of scikit-learn: `Classifier`, `Regressor` and `Autoencoder`, a transformer.

They work in pipelines, grid searches and cross-validation, with DataFrames, and are cloned, pickled and
dumped like any other. Import ``minidl.sklearn``, or use ``dl.sklearn``; nothing else here needs scikit-learn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from itertools import pairwise
from typing import Any, Self

import numpy
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    RegressorMixin,
    TransformerMixin,
)
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
from minidl.training import History, Trainer

#: Makes a network of the numbers of inputs and outputs and of a Generator.
Factory = Callable[[int, int, Generator], Layer]


class _Estimator(BaseEstimator):  # type: ignore[misc]
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

    Attributes
    ----------
    network_, history_ : the trained network, and what happened
    """

    def __init__(
        self,
        network: Layer | Factory | None = None,
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

    network_: Any
    history_: History

    def _checked(self, *arrays: Any, **options: Any) -> Any:
        """Return inputs, and targets if given, as float32; only a network of one's own takes images."""
        images = self.network is not None
        return validate_data(self, *arrays, dtype=numpy.float32, allow_nd=images, **options)

    def _default(self, inputs: int, outputs: int, generator: Generator) -> Layer:
        sizes = [inputs, *self.hidden, outputs]
        dense = [Dense(a, b, seed=generator) for a, b in pairwise(sizes)]
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
        loss = usual if self.loss is None else self.loss

        def weighted(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
            each = loss(prediction, target, reduction="none")
            return (each.reshape(len(weight), -1).mean(1) * weight).mean()

        named = isinstance(self.optimizer, str)
        optimizer = self.optimizer if named else self.optimizer(self.network_.parameters())
        options: dict[str, Any] = {"device": self.device, "compile": self.compile, "seed": seed}
        trainer = Trainer(self.network_, weighted, optimizer, **options)
        if self.learning_rate is not None:
            trainer.optimizer.learning_rate = self.learning_rate
        order, kept = random.permutation(len(x)), math.ceil(len(x) * self.validation_fraction)
        if kept >= len(x):
            raise ValueError(
                f"validation_fraction={self.validation_fraction} leaves none of {len(x)} samples"
            )
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

    def _outputs(self, x: Any, function: Callable[[Any], Tensor] | None = None, rows: int = 1024) -> Any:
        """Return what the trained network, or a part of it, makes of inputs, some rows at a time."""
        function = self.network_ if function is None else function
        with no_grad(), self.network_.evaluating():
            parts = [function(Tensor(x[i : i + rows])).numpy() for i in range(0, len(x), rows)]
        return numpy.concatenate(parts)

    def _checked_outputs(self, x: Any) -> Any:
        check_is_fitted(self)
        return self._outputs(self._checked(x, reset=False))


class Classifier(ClassifierMixin, _Estimator):  # type: ignore[misc]
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
        return softmax(Tensor(self._checked_outputs(X))).numpy()

    def predict(self, X: Any) -> Any:
        """Return labels (samples,)."""
        return self.classes_[self._checked_outputs(X).argmax(-1)]


class Regressor(RegressorMixin, _Estimator):  # type: ignore[misc]
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

    def predict(self, X: Any) -> Any:
        """Return predictions of the shape of the targets."""
        outputs = self._checked_outputs(X)
        return outputs.reshape(len(outputs), *self._shape) * self._scale + self._mean


class _Tied(Layer):
    """An autoencoder whose decoder has the encoder's weights, transposed."""

    def __init__(self, sizes: list[int], generator: Generator):
        self.normalize = Normalize((sizes[0],))
        self.dense = [Dense(a, b, seed=generator) for a, b in pairwise(sizes)]
        self.biases = [Parameter(zeros(layer.in_features)) for layer in self.dense]

    def encode(self, x: Tensor) -> Tensor:
        """Compute codes."""
        x = self.normalize(x)
        for i, layer in enumerate(self.dense):
            x = layer(relu(x) if i else x)
        return x

    def decode(self, x: Tensor) -> Tensor:
        """Compute inputs from codes."""
        pairs = list(zip(self.dense, self.biases, strict=True))
        for i, (layer, bias) in enumerate(reversed(pairs)):
            x = (relu(x) if i else x) @ layer.weight.T + bias
        return x / self.normalize.factor + self.normalize.offset

    def forward(self, x: Tensor) -> Tensor:
        """Compute reconstructions."""
        return self.decode(self.encode(x))


class Autoencoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, _Estimator):  # type: ignore[misc]
    """A transformer to codes, from which a network reconstructs the inputs.

    Parameters and attributes are those of all estimators here; the last of ``hidden`` is the code, and the
    usual loss is the mean squared error. A network of one's own has ``encode`` and ``decode``.
    """

    def _default(self, inputs: int, outputs: int, generator: Generator) -> Layer:
        return _Tied([inputs, *self.hidden], generator)

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Train on X (samples, features)."""
        X = self._checked(X)
        self._train(X, X, sample_weight, X.shape[-1], mean_squared_error)
        self._n_features_out = self._outputs(X[:1], self.network_.encode).shape[-1]
        return self

    def transform(self, X: Any) -> Any:
        """Return codes (samples, code)."""
        check_is_fitted(self)
        return self._outputs(self._checked(X, reset=False), self.network_.encode)

    def inverse_transform(self, X: Any) -> Any:
        """Return what the network reconstructs from codes (samples, code)."""
        check_is_fitted(self)
        return self._outputs(check_array(X, dtype=numpy.float32), self.network_.decode)

    def score(self, X: Any, y: Any = None) -> float:
        """Return minus the mean squared error of the reconstructions."""
        check_is_fitted(self)
        X = self._checked(X, reset=False)
        return -float(numpy.mean((self._outputs(X) - X) ** 2))
